"""Where a backbone's parameters come from, what is written about them, and loading them."""
