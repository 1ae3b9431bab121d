"""Data sets of normal and defective images with their masks."""
