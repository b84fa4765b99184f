"""Images of the demo study: photographs, and the same kind of crops with simulated fingerprints of generators.

The photographs are the two that ship with scikit-learn. A "generator" is the known trace of a generator's decoder,
applied to a crop. This shows the pipeline at work on real files; it says nothing of the quality of detection.
"""
