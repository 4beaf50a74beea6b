"""Which backbone, and which strategy, for this data: ranking and advice."""
