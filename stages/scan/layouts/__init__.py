"""How corpora lie on disk: a layout tells label, generator, split and test sets of a folder's images from its place."""
