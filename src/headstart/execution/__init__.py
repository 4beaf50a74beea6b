"""One run as a straight line: assemble, execute, load, predict."""
