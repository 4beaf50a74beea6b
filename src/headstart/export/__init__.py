"""A trained model in a form for use elsewhere."""
