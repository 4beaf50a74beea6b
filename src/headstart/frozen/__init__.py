"""Heads of many runs trained together over one frozen backbone, each with the result that it would have had alone."""
