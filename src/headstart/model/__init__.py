"""A backbone and a head as one network, described for strategies."""
