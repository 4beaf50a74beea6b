"""A student learns from a fine-tuned teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from headstart.errors import ConfigError
from headstart.strategies.contract import Extras, Step, Strength, Surroundings
from headstart.strategies.full import Full
from headstart.system.options import Above

if TYPE_CHECKING:
    from torch import Tensor, nn

    from headstart.data.input_spec import InputSpec
    from headstart.model.transfer_model import TransferModel

_REGRESSOR = "regressor"


@dataclass(frozen=True)
class Distill(Full):
    """Fine-tune everything, also to match a teacher: the finished run of another network on the same classes.

    The extra loss is ``weight * T^2 * KL(softmax(z_t / T) || softmax(z_s / T))`` with the teacher's and the student's
    outputs, mean over the batch. With ``feature_weight`` there is a second one, ``feature_weight / 2 *
    ||r(f_s) - f_t||^2``, mean over the batch and the teacher's feature channels, of pooled features scaled to unit
    variance within each image; ``r`` is a linear layer that learns along and is thrown away. The teacher is frozen,
    in evaluation mode, sees the student's augmented images in its own size and normalisation, and is no part of
    checkpoints.

    References: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2; Romero et
    al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 3.

    Attributes:
        teacher: directory of a finished run, a folder that holds one, or a pattern that one matches.
        temperature: ``T``; higher shows more of how the teacher ranks the wrong classes.
        weight: of the loss on outputs; the task's own loss has weight 1.
        feature_weight: of the loss on features.
    """

    one_class_only = True
    needs_images = "strategy=distill shows images to the teacher"
    teacher: str | None = None
    temperature: Annotated[float, Above(0)] = 4.0
    weight: Strength = 1.0
    feature_weight: Strength = 0.0

    @property
    def references(self) -> Mapping[str, str]:
        """The teacher.

        Raises:
            ConfigError: none is given.
        """
        if not self.teacher:
            raise ConfigError(
                "strategy=distill needs a teacher: strategy.teacher=PATH, the directory of a finished run"
            )
        return {"teacher": self.teacher}

    def prepare(self, model: "TransferModel", run: Surroundings) -> None:
        """Check that the teacher knows these classes; add the regressor where features are matched.

        Raises:
            ConfigError: the teacher tells other classes apart, or sees images of other channels.
        """
        other, channels = run.runs["teacher"], run.data.eval_transform.spec.channels
        if other.classes != tuple(run.task.classes):
            known = (other.classes, run.task.classes)
            theirs, ours = (f"{len(names)} ({', '.join(names[:3])}, ...)" for names in known)
            raise ConfigError(
                f"strategy.teacher={self.teacher} tells {theirs} classes apart and the data has {ours}; they must be "
                "the same, in the same order"
            )
        if other.input_spec.channels != channels:
            raise ConfigError(
                f"strategy.teacher={self.teacher} sees {other.input_spec.channels}-channel images and the student "
                f"{channels}; set backbone.in_channels={other.input_spec.channels}"
            )
        if self.feature_weight > 0:
            from headstart.heads import Linear

            teacher: Any = other.model
            model.auxiliary[_REGRESSOR] = Linear(model.backbone.features, teacher.backbone.features.dim)

    def start(self, model: "TransferModel", run: Surroundings) -> Extras:
        """The losses ``distill``, and ``features`` where they are matched."""
        other = run.runs["teacher"]
        teacher = Teacher(other.model, other.input_spec, run.data.eval_transform.spec)

        def distill(step: Step) -> "Tensor":
            return self.weight * soft_divergence(teacher(step)[1], step.outputs, self.temperature)

        def features(step: Step) -> "Tensor":
            wanted, found = teacher(step)[0], model.auxiliary[_REGRESSOR](step.features)
            return self.feature_weight / 2 * (standardised(found) - standardised(wanted)).square().mean()

        return Extras({"distill": distill} | ({"features": features} if self.feature_weight > 0 else {}))


class Teacher:
    """A frozen model that is shown a student's batches; each batch once."""

    def __init__(self, model: "nn.Module", spec: "InputSpec", student: "InputSpec") -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.spec, self.student = spec, student
        self._seen: tuple[Tensor | None, tuple[Tensor, Tensor] | None] = (None, None)

    def __call__(self, step: Step) -> "tuple[Tensor, Tensor]":
        """Pooled features ``(B, C)`` and outputs ``(B, outputs)`` for the batch of a step."""
        import torch

        from headstart.heads.pool import Pool

        images, answer = self._seen
        if answer is None or images is not step.images:
            self.model.to(step.outputs.device)
            with torch.no_grad():
                features = self.model.features(adapted(step.images, self.student, self.spec))
                answer = Pool(self.model.backbone.features)(features).float(), self.model.head(features).float()
            self._seen = (step.images, answer)
        return answer


def adapted(images: "Tensor", given: "InputSpec", wanted: "InputSpec") -> "Tensor":
    """``(B, C, H, W)`` normalised and sized for one network, as another one expects them."""
    import torch

    def column(values: tuple[float, ...]) -> "Tensor":
        return torch.tensor(values, device=images.device, dtype=images.dtype).view(1, -1, 1, 1)

    if (given.mean, given.std) != (wanted.mean, wanted.std):
        images = (images * column(given.std) + column(given.mean) - column(wanted.mean)) / column(wanted.std)
    size = (wanted.height, wanted.width)
    if tuple(images.shape[2:]) != size:
        images = torch.nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)
    return images


def soft_divergence(teacher: "Tensor", student: "Tensor", temperature: float) -> "Tensor":
    """``T^2 * KL(softmax(teacher / T) || softmax(student / T))``, mean over the batch.

    Both are ``(B, classes)``, or ``(B, 1)``: a sigmoid's logit.
    """
    import torch
    from torch.nn import functional as F  # noqa: N812

    def columns(outputs: "Tensor") -> "Tensor":
        wide = outputs if outputs.shape[1] > 1 else torch.cat((torch.zeros_like(outputs), outputs), dim=1)
        return F.log_softmax(wide.float() / temperature, dim=1)

    wanted = columns(teacher)
    return temperature**2 * F.kl_div(columns(student), wanted, reduction="batchmean", log_target=True)


def standardised(features: "Tensor") -> "Tensor":
    """``(B, C)`` with mean 0 and variance 1 in each row."""
    from torch.nn import functional as F  # noqa: N812

    return F.layer_norm(features.float(), features.shape[1:])
