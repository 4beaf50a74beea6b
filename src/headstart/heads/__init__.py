"""Heads turn a backbone's features into outputs for the task. They own their pooling."""

from headstart.heads.closed_form import ClosedForm, LinearClosedForm
from headstart.heads.dense import Dense
from headstart.heads.knn import NearestNeighbours
from headstart.heads.linear import Linear
from headstart.heads.logreg import LogisticRegression
from headstart.heads.mlp import MLP, FlattenMLP
from headstart.heads.ncm import NearestClassMean
from headstart.heads.pool import Pool
from headstart.heads.ridge import Ridge

__all__ = [
    "MLP",
    "ClosedForm",
    "Dense",
    "FlattenMLP",
    "Linear",
    "LinearClosedForm",
    "LogisticRegression",
    "NearestClassMean",
    "NearestNeighbours",
    "Pool",
    "Ridge",
]
