"""Training many heads in one loop: heads of one kind are stacked, and each step is taken for all of them.

What comes out for a head is what it would have come to alone, up to rounding: the accuracy differs by an image at most,
the loss by a thousandth.
"""

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from headstart.data.sampler import EpochSampler, RepeatedBatches
from headstart.errors import DivergedError, RunError
from headstart.frozen.features import SplitFeatures
from headstart.frozen.layers import StackedLayers
from headstart.system.hardware import memory_bytes
from headstart.tasks import Task
from headstart.training.choice import EpochChoice
from headstart.training.module import check_finite
from headstart.training.rates import RatePlan, build_plateau, plateau_factor
from headstart.training.rows import Row, distinct_rates
from headstart.training.seeds import step_seed

Precision = Callable[[], AbstractContextManager[Any]]

# Share of the memory that the weights of one stack may take, with gradients and moments.
_SHARE = 0.3
_LARGEST_STACK = 256


@dataclass(frozen=True)
class HeadTraining:
    """How one head is trained.

    Attributes:
        head: freshly initialised; it stays as it is.
        kind: heads of one kind differ in their parameters only, and are trained for the same task.
        features: of ``train`` and ``val``.
        plan: its rates, in one phase.
        task: loss and metrics.
        optimizer: makes it from torch's parameter groups; its keywords are the options.
        max_epochs: how long it trains at most.
        seed: of the order of the images and of dropout.
        batch_size: images in a step.
        eval_batch_size: images in a batch of evaluation.
        drop_last: leave out the last, smaller batch.
        steps_per_epoch: None: as many as there are batches.
        balanced: show all classes equally often.
        clip: largest gradient, by ``value`` or ``norm``; None: any.
        stopping: epochs without an improvement after which it stops, and how large one must be; None: never.
    """

    head: nn.Module
    kind: str
    features: Mapping[str, SplitFeatures]
    plan: RatePlan
    task: Task
    optimizer: partial[Optimizer]
    max_epochs: int
    seed: int
    batch_size: int
    eval_batch_size: int
    drop_last: bool = False
    steps_per_epoch: int | None = None
    balanced: bool = False
    clip: tuple[str, float] | None = None
    stopping: tuple[int, float] | None = None

    @property
    def stack_key(self) -> str:
        """What recipes must have in common to be stepped together."""
        shapes = [[name, list(parameter.shape)] for name, parameter in self.head.named_parameters()]
        sizes = [self.batch_size, self.eval_batch_size, self.drop_last, self.steps_per_epoch]
        # Torch's fused steps are not for all that clip.
        steps = [str(self.optimizer.func), self.optimizer.keywords.get("fused")]
        return json.dumps([self.kind, id(self.features), shapes, sizes, steps])

    def batches(self, epoch: int) -> tuple[list[Tensor], list[int]]:
        """Positions of an epoch's training images batch by batch, and the pass over the images of each batch."""
        train, size = self.features["train"], self.batch_size
        classes, length = train.targets.cpu().numpy() if self.balanced else None, len(train)
        sampler = EpochSampler(length, seed=self.seed, shuffle=True, drop_last=self.drop_last, classes=classes)
        if self.steps_per_epoch is not None:
            sampler.set_epoch(epoch)
            dealt = list(RepeatedBatches(sampler, size, steps=self.steps_per_epoch, drop_last=self.drop_last))
            batches = [torch.tensor([index for _, index in keys]) % length for keys in dealt]
            return batches, [keys[0][0] for keys in dealt]
        found = list(torch.from_numpy(sampler.order(epoch) % length).split(size))
        if self.drop_last and len(found[-1]) < size:
            found.pop()
        return found, [epoch] * len(found)


@dataclass
class TrainedHead:
    """What a head has come to.

    Attributes:
        recipe: how it is trained.
        stack: how many heads were stepped together with it, at first, itself included.
        rows: of ``metrics.csv``.
        best_epoch: the one that validation chose, counted from 0.
        best: the head's parameters then, by name.
        last: the head's parameters in the end.
        images_seen: in training.
        fit_seconds: its share of the time of every epoch.
        error: what ended it, if something did.
        choice: which images each epoch had right, where accuracy chooses.
    """

    recipe: HeadTraining
    stack: int
    rows: list[Row] = field(default_factory=list)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    last: dict[str, Tensor] = field(default_factory=dict)
    images_seen: int = 0
    fit_seconds: float = 0.0
    error: DivergedError | None = None
    choice: EpochChoice = field(default_factory=EpochChoice)

    def __post_init__(self) -> None:
        self._plateau = build_plateau(self.recipe.plan.schedule, self.recipe.task.monitor_mode)
        self._best_place, self._stopping_score, self._waited = (-np.inf, -np.inf), -np.inf, 0

    @property
    def epochs(self) -> int:
        """How many it was trained."""
        return len(self.rows)

    def rates(self, position: float) -> list[float]:
        """Of the groups of its plan, at a position in epochs."""
        return self.recipe.plan.rates(position, plateau=plateau_factor(self._plateau))

    def end_epoch(
        self, metrics: dict[str, float], position: float, state: Callable[[], dict[str, Tensor]], **more: float
    ) -> bool:
        """Note an epoch; whether another one follows.

        Args:
            metrics: of training and validation.
            position: of the last step, in epochs.
            state: gives the parameters as they are.
            more: ``step`` and ``seconds``.
        """
        plan, task, epoch = self.recipe.plan, self.recipe.task, len(self.rows)
        rates = {f"lr/{group.name}": rate for group, rate in zip(plan.groups, self.rates(position), strict=True)}
        self.rows.append({"epoch": epoch, "phase": plan.phases[0].name, **metrics, **distinct_rates(rates), **more})
        try:
            check_finite(metrics, epoch, plan.base_lr)
        except DivergedError as error:
            self.error = error
            return False
        value, loss = metrics[task.monitor], metrics["val/loss"]
        if self._plateau is not None:
            self._plateau.step(value)
        score = -np.inf if np.isnan(value) else value if task.monitor_mode == "max" else -value
        place = (score, -np.inf if np.isnan(loss) else -loss)  # of equal scores, the lower loss
        if not self.best or place > self._best_place:
            self.best_epoch, self.best, self._best_place = epoch, state(), place
        if epoch + 1 < self.recipe.max_epochs and not self._stops(score):
            return True
        self.last = state()
        return False

    def _stops(self, score: float) -> bool:
        """Whether validation has not improved for too long, or is no number."""
        if self.recipe.stopping is None:
            return False
        patience, min_delta = self.recipe.stopping
        if score - min_delta > self._stopping_score:
            self._stopping_score, self._waited = score, 0
        else:
            self._waited += 1
        return self._waited >= patience or not np.isfinite(score)


def stacks(recipes: Sequence[HeadTraining]) -> list[list[int]]:
    """Places of the recipes that are stepped together, as many as there is memory for."""
    alike: dict[str, list[int]] = {}
    for place, recipe in enumerate(recipes):
        alike.setdefault(recipe.stack_key, []).append(place)
    found = []
    for places in alike.values():
        parameters = recipes[places[0]].head.parameters()
        # Weights, gradient, two moments, and the best weights.
        room = int(_SHARE * memory_bytes()) // max(1, 5 * sum(p.numel() * p.element_size() for p in parameters))
        size = max(1, min(_LARGEST_STACK, room))
        found += [places[start : start + size] for start in range(0, len(places), size)]
    return found


class Stack:
    """Heads of one :attr:`HeadTraining.stack_key`, trained together.

    Every parameter of all heads lies in one tensor ``(heads, ...)``; each head's slice of it is a parameter of the
    optimizer, which holds the heads that share all their rates in one group.

    Args:
        recipes: of the heads.
        device: of the features.
        precision: context of a forward pass.

    Attributes:
        running: the heads that go on.
    """

    def __init__(self, recipes: Sequence[HeadTraining], *, device: torch.device, precision: Precision) -> None:
        self.running = [TrainedHead(recipe, len(recipes)) for recipe in recipes]
        self._first, self._device, self._precision, self._step = recipes[0], device, precision, 0
        self._skeleton = copy.deepcopy(self._first.head).to("meta")
        named = [dict(recipe.head.named_parameters()) for recipe in recipes]
        self._hold({name: torch.stack([one[name].detach() for one in named]).to(device) for name in named[0]})

    def train(self) -> Iterator[list[TrainedHead]]:
        """Yields after every epoch the heads that have ended, however they did; one that failed has its error.

        Raises:
            RuntimeError: heads of this kind cannot be stacked.
            RunError: a parameter never receives a gradient.
        """
        epoch = 0
        while self.running:
            yield self._run_epoch(epoch)
            epoch += 1

    def _run_epoch(self, epoch: int) -> list[TrainedHead]:
        started, val = time.perf_counter(), self._first.features["val"]
        train, position = self._train_epoch(epoch)
        outputs, targets = self._evaluate(val).cpu(), val.targets.cpu()
        scores = self._first.task.evaluate_each(outputs, targets)
        seconds = round(time.perf_counter() - started, 3)
        places, ended = [], []
        for place, head in enumerate(self.running):
            head.fit_seconds += seconds / len(self.running)
            metrics = {f"train/{name}": value for name, value in train[place].items()}
            metrics |= {f"val/{name}": value for name, value in scores[place].items()}
            head.choice.see(head.recipe.task, outputs[place], targets)
            if head.end_epoch(metrics, position, partial(self._state, place), step=self._step, seconds=seconds):
                places.append(place)
            else:
                ended.append(head)
        if ended:
            self._keep_only(places)
        return ended

    def _train_epoch(self, epoch: int) -> tuple[list[dict[str, float]], float]:
        """Losses and metrics of each head, and the position of the last step."""
        features, task = self._first.features["train"], self._first.task
        dealt = [head.recipe.batches(epoch) for head in self.running]
        passes = dealt[0][1]
        collected: list[tuple[Tensor, Tensor, Tensor]] = []
        self._skeleton.train()
        for number, turn in enumerate(passes):
            index = torch.stack([found[number] for found, _ in dealt]).to(self._device)
            rows, targets = features.batch(turn, index)
            outputs, losses = self._gradients(rows, targets, number)
            self._set_rates(epoch + number / len(passes))
            self._optimizer.step()
            self._step += 1
            collected.append((outputs, targets, losses))
            for head in self.running:
                head.images_seen += index.shape[1]
        sizes = torch.tensor([targets.shape[1] for _, targets, _ in collected], dtype=torch.float32)
        means = torch.stack([losses for _, _, losses in collected], dim=1).float().cpu() @ (sizes / sizes.sum())
        outputs, targets = (torch.cat(parts, dim=1).cpu() for parts in list(zip(*collected, strict=True))[:2])
        summaries = [
            task.training_metrics(*head, objective=float(objective), differs=task.weighs)
            for objective, *head in zip(means, outputs, targets, strict=True)
        ]
        return summaries, epoch + 1 - 1 / len(passes)

    def _gradients(self, rows: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Outputs and objectives ``(heads,)``; the gradients are those of the optimizer's parameters, clipped."""

        def seed_of(place: int) -> int:
            return step_seed(self.running[place].recipe.seed, self._step, number)

        with StackedLayers(self._device, seed_of), self._precision():
            outputs = vmap(self._outputs)(self._stacked, rows)
            losses = vmap(self._first.task.objective)(outputs, targets)
        gradients = torch.autograd.grad(losses.sum(), list(self._stacked.values()), allow_unused=True)
        for name, gradient in zip(self._stacked, gradients, strict=True):
            if gradient is None:
                raise RunError(f"trainable parameter head.{name} never received a gradient")
            # Torch's fused steps read a gradient as if it lay in memory as its parameter does.
            for view, part in zip(self._views, gradient.contiguous(), strict=True):
                view[name].grad = part
        for head, view in zip(self.running, self._views, strict=True):
            if head.recipe.clip is not None:
                how, largest = head.recipe.clip
                (clip_grad_value_ if how == "value" else clip_grad_norm_)(list(view.values()), largest)
        return outputs.detach(), losses.detach()

    def _outputs(self, params: dict[str, Tensor], rows: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._skeleton, params, (rows,))
        return outputs.float()

    def _set_rates(self, position: float) -> None:
        rates = {id(head): head.rates(position) for head in self.running}
        for group in self._optimizer.param_groups:
            group["lr"] = rates[id(group["head"])][group["number"]]

    @torch.no_grad()
    def _evaluate(self, features: SplitFeatures) -> Tensor:
        """``(heads, N, outputs)`` of a split."""
        self._skeleton.eval()
        parts = []
        with StackedLayers(self._device, int), self._precision():
            for index in torch.arange(len(features)).split(self._first.eval_batch_size):
                rows, _ = features.batch(0, index.to(self._device))
                parts.append(vmap(self._outputs, in_dims=(0, None))(self._stacked, rows))
        return torch.cat(parts, dim=1)

    def _state(self, place: int) -> dict[str, Tensor]:
        return {name: stacked.detach()[place].cpu().clone() for name, stacked in self._stacked.items()}

    def _keep_only(self, places: list[int]) -> None:
        """Go on with these heads, with the moments that their optimizer has."""
        old, views = self._optimizer, [self._views[place] for place in places]
        self.running = [self.running[place] for place in places]
        if not places:
            return
        chosen = torch.tensor(places, device=self._device)
        self._hold({name: stacked.detach().index_select(0, chosen) for name, stacked in self._stacked.items()})
        for before, now in zip(views, self._views, strict=True):
            for name, parameter in before.items():
                if parameter in old.state:
                    self._optimizer.state[now[name]] = old.state[parameter]

    def _hold(self, stacked: dict[str, Tensor]) -> None:
        """Take the heads' parameters, and build the optimizer of their slices."""
        self._stacked = {name: tensor.requires_grad_() for name, tensor in stacked.items()}
        self._views = [
            {name: Parameter(tensor.detach()[place]) for name, tensor in stacked.items()}
            for place in range(len(self.running))
        ]
        groups: dict[str, dict[str, Any]] = {}
        for head, view in zip(self.running, self._views, strict=True):
            plan, chosen = head.recipe.plan, head.recipe.optimizer.keywords
            follows = id(head) if plan.schedule.name == "plateau" else [vars(plan.schedule), plan.phases[0].end_epoch]
            for number, group in enumerate(plan.groups):
                options = {**chosen, "weight_decay": chosen.get("weight_decay", 0.0) if group.decays else 0.0}
                key = json.dumps([options, follows, group.multipliers], default=str)
                made = groups.setdefault(key, {**options, "params": [], "head": head, "number": number})
                made["params"] += [view[name.removeprefix("head.")] for name in group.parameters]
        self._optimizer = self._first.optimizer(list(groups.values()))
