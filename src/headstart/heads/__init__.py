"""Heads turn a backbone's features into outputs for the task. They own their pooling."""

from headstart.heads.linear import Linear
from headstart.heads.mlp import MLP, FlattenMLP
from headstart.heads.pool import Pool

__all__ = ["MLP", "FlattenMLP", "Linear", "Pool"]
