"""What both sides agree on; imports neither side."""

__version__ = "0.1.0"
