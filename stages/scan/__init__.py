"""Image folders -> manifest: find the files in one walk, and tell each one's class from where it lies."""
