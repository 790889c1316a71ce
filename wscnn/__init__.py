"""Rare cellular phenotypes in high-content screens, found from well-level labels alone."""

__version__ = "0.1.0"
