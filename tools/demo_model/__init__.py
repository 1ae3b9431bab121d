"""Training of the demo model on procedural surfaces: `python -m tools.demo_model --help`."""
