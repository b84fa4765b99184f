"""Bundles and images -> verdicts: a head with all it needs in one file, and what it says of any image."""
