"""localr1: distilled R1-style reasoning models in the terminal."""

__version__ = "0.1.0"
