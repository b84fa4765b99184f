"""What is wrong with a corpus before any number of it is trusted: counts, classes, formats, duplicates."""
