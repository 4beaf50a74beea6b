"""Which backbone, and which strategy, for this data: scores, ranking and advice."""
