"""Go on training the source classifier too, on what the target's classes look like to it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from headstart.errors import ConfigError
from headstart.model.description import ModelInfo
from headstart.model.phases import Group, Phase, one_phase, stage_group
from headstart.strategies.contract import Extras, RateMultiple, Step, Strategy, Strength, Surroundings
from headstart.system.options import Above

if TYPE_CHECKING:
    from torch import Tensor

    from headstart.model.transfer_model import TransferModel

_SOURCE = "source_classifier"


@dataclass(frozen=True)
class CoTuning(Strategy):
    """Fine-tune everything and the source classifier, which keeps the part of the network that transfer throws away.

    The extra loss is ``weight * CE(p(y_s | y_t), G_s(F(x)))``: the source classifier ``G_s`` learns, for an image of
    target class ``y_t``, the distribution of source classes that belongs to that class. This relationship is
    estimated from one pass over the training images. ``direct``: the mean of ``G_s``'s probabilities over the images
    of the class. ``reverse``: ``p(y_t | y_s)`` by logistic regression on the probabilities, turned around by Bayes'
    rule; the regression's strength is chosen by cross-validation. The paper calibrates the probabilities on source
    data, which weights do not bring along; where the right temperature is known, give it. The authors' code
    (thuml/CoTuning) multiplies the logits of torchvision's ResNet-50 by 0.884, chooses the regression by its accuracy
    on validation, and calibrates its probabilities there; here it is chosen by its log loss and taken as it is.

    Reference: You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020, eq. 4 and section 3.3.

    Attributes:
        backbone_lr_mult: the rate of the backbone and the source classifier as a multiple of the head's.
        weight: of the extra loss.
        relationship: how ``p(y_s | y_t)`` is estimated.
        temperature: divides the source classifier's logits before the estimate.
    """

    one_class_only = True
    backbone_lr_mult: RateMultiple = 1.0
    weight: Strength = 0.5
    relationship: Literal["reverse", "direct"] = "reverse"
    temperature: Annotated[float, Above(0)] = 1.0

    def prepare(self, model: "TransferModel", run: Surroundings) -> None:
        """Add the source classifier as an auxiliary head.

        Raises:
            ConfigError: the weights came without one.
        """
        import torch

        from headstart.heads import Linear

        classifier = model.backbone.source_classifier
        if classifier is None:
            source = model.backbone.weights.source
            raise ConfigError(
                f"strategy=cotuning needs the source task's classifier, and backbone.weights={source} brings none for "
                "these features; use weights with a classifier, backbone.pre_logits=keep, or another strategy"
            )
        head = Linear(model.backbone.features, len(classifier.bias))
        with torch.no_grad():
            head.linear.weight.copy_(classifier.weight)
            head.linear.bias.copy_(classifier.bias)
        model.auxiliary[_SOURCE] = head

    def phases(self, model: ModelInfo, *, max_epochs: int) -> tuple[Phase, ...]:
        """One phase in which everything learns, the source classifier at the backbone's rate."""
        backbone = [stage_group(stage, lr_mult=self.backbone_lr_mult) for stage in model.backbone_stages]
        names = tuple(p.name for p in model.head.parameters if p.name.startswith(f"auxiliary.{_SOURCE}."))
        head = stage_group(model.head, keep=lambda p: p.name not in names)
        return one_phase("all", [*backbone, head, Group(_SOURCE, names, self.backbone_lr_mult)], max_epochs)

    def start(self, model: "TransferModel", run: Surroundings) -> Extras:
        """Estimate the relationship, for the loss ``cotuning``."""
        import torch

        from headstart.model.features import pooled_features

        features, targets = pooled_features(model.backbone, run.data, "train", run.device)
        source: Any = model.auxiliary[_SOURCE]
        with torch.no_grad():
            logits = torch.nn.functional.linear(features, source.linear.weight, source.linear.bias)
        estimate = direct_relationship if self.relationship == "direct" else reverse_relationship
        relationship = estimate(torch.softmax(logits / self.temperature, dim=1), targets, len(run.data.classes))

        def cotuning(step: Step) -> "Tensor":
            wanted = source_targets(relationship.to(step.outputs.device), step.targets)
            outputs = model.auxiliary[_SOURCE](step.features).float()
            return self.weight * torch.nn.functional.cross_entropy(outputs, wanted)

        return Extras({"cotuning": cotuning})


def source_targets(relationship: "Tensor", targets: "Tensor") -> "Tensor":
    """The rows of ``(classes, source classes)`` for ``(B,)`` class numbers or ``(B, classes)`` shares."""
    return relationship[targets] if targets.ndim == 1 else targets @ relationship


def direct_relationship(probabilities: "Tensor", targets: "Tensor", classes: int) -> "Tensor":
    """``p(y_s | y_t)`` ``(classes, source classes)``: the mean of ``(N, source classes)`` over each class."""
    import torch

    # Of a class without training images nothing is known.
    unknown = torch.full_like(probabilities[:1], 1 / probabilities.shape[1])
    rows = (probabilities[targets == number] for number in range(classes))
    return torch.stack([(own if len(own) else unknown).mean(dim=0) for own in rows])


def reverse_relationship(probabilities: "Tensor", targets: "Tensor", classes: int) -> "Tensor":
    """``p(y_s | y_t)`` ``(classes, source classes)`` from ``p(y_t | y_s)`` and ``p(y_s)`` by Bayes' rule."""
    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    values, labels = probabilities.double().numpy(), targets.numpy()
    folds = min(5, int(np.unique(labels, return_counts=True)[1].min()))
    regression = LogisticRegression(fit_intercept=False, max_iter=5000)
    if folds > 1:
        strengths = {"C": [0.1, 1.0, 10.0, 100.0, 1000.0]}
        regression = GridSearchCV(regression, strengths, cv=folds, scoring="neg_log_loss").fit(values, labels)
        regression = regression.best_estimator_
    else:
        regression.fit(values, labels)
    # What the regression makes of an image that is surely of one source class.
    target_given_source = regression.predict_proba(np.eye(values.shape[1]))
    joint = target_given_source * values.mean(axis=0)[:, None]
    # Of a class without training images nothing is known.
    found = np.full((classes, values.shape[1]), 1 / values.shape[1])
    found[regression.classes_] = (joint / joint.sum(axis=0)).T
    return torch.from_numpy(found).float()
