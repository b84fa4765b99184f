"""What each stage of the study does, one sub-package a stage, in the order of the graph."""
