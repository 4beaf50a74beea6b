"""Headstart: config-driven transfer-learning experiments on images."""

__version__ = "0.1.0"
