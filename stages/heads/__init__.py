"""What a head is: its settings, its module, its file; no training."""
