"""Evaluation of generated pairs: what a detector learns from them, measured on real images that it never saw."""
