"""Finished and unfinished runs on disk: the directory, its result, and which process owns it."""
