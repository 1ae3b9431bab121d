"""Anomaly generation with diffusion models from a few shots."""

__version__ = "0.1.0"
