"""Features to transition profiles: how the CLS token moves from block to block, per group of images."""
