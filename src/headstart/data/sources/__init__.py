"""Readers of published collections and of what other libraries store. Importing this needs no torch."""
