"""How well frozen features suit a target, in one number each: arrays in, number out. Nothing here trains a network."""
