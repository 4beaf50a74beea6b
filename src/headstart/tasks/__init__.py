"""Tasks: what is predicted, with which loss, and how well."""

from headstart.tasks.build import ClassWeights, build_task
from headstart.tasks.classification import Binary, Multiclass
from headstart.tasks.contract import Task
from headstart.tasks.multilabel import Multilabel
from headstart.tasks.regression import Regression

__all__ = ["Binary", "ClassWeights", "Multiclass", "Multilabel", "Regression", "Task", "build_task"]
