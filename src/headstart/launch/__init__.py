"""Running the jobs of a sweep: each in a process of its own, so that none can take the others with it."""
