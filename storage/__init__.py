"""What lies on disk and survives a crash: atomic files, shards, index, store, head files, errors."""
