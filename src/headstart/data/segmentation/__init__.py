"""Images with masks: a class number for every pixel."""
