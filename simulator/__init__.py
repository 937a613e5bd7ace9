"""The VQE pipeline's simulator: chemistry, engines, the VQE loop, events and their sinks, and the command line."""

__version__ = "0.1.0"
