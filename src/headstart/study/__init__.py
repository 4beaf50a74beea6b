"""Studies: collect runs, decide what may be compared, and say what they show."""
