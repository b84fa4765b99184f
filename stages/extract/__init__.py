"""Manifest -> features: the frozen backbone runs over the images once, and its tokens are cached in shards."""
