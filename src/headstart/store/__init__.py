"""Frozen work is done once: what a frozen prefix makes of the images is kept on disk, under a key of what made it."""
