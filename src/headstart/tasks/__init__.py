"""Tasks: what is predicted, with which loss, and how well."""

from headstart.tasks.build import ClassWeights, build_task
from headstart.tasks.classification import Binary, Multiclass
from headstart.tasks.contract import Task
from headstart.tasks.multilabel import Multilabel
from headstart.tasks.regression import Regression
from headstart.tasks.segmentation import Segmentation

__all__ = ["Binary", "ClassWeights", "Multiclass", "Multilabel", "Regression", "Segmentation", "Task", "build_task"]
