"""Experiment loggers beside the run directory."""
