"""Many heads over one resident feature table: seeds x heads x settings, with the window and the layer sweep ready."""
