"""Jobs whose heads are of one kind, stepped together."""

import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from headstart.errors import DivergedError, RunError
from headstart.frozen.each import JobByJob
from headstart.frozen.features import Features, batches_of
from headstart.frozen.member import Member
from headstart.system.hardware import torch_threads
from headstart.tasks import Multiclass
from headstart.training.assemble import build_optimizer
from headstart.training.callbacks import step_seed, write_metrics

Precision = Callable[[], AbstractContextManager[Any]]

# Weights of a layer up to which sharing out a product among threads takes longer than the product.
_SMALL = 2**17


class Stack:
    """Heads of one shape over the same rows, with equally many steps an epoch.

    Every parameter of all heads lies in one tensor ``(jobs, ...)``; each job's slice of it is a parameter of the
    optimizer, which holds the jobs that share all their rates in one group.

    Args:
        members: the jobs, all of one :func:`stack_key`.
        device: of the features.
        precision: the trainer's context for a forward pass.
    """

    def __init__(self, members: Sequence[Member], *, device: torch.device, precision: Precision) -> None:
        self.members = list(members)
        self._device, self._precision = device, precision
        first = members[0]
        self._features, self._task = first.splits.features, first.task
        self._skeleton = copy.deepcopy(first.head).to("meta")
        self._random = any(_may_drop(module) for module in first.head.modules())
        self._step = 0
        named = [dict(member.head.named_parameters()) for member in members]
        self._names = list(named[0])
        self._params = {
            name: torch.stack([one[name].detach() for one in named]).to(device).requires_grad_() for name in self._names
        }
        self._views: list[dict[str, Parameter]] = []
        self._optimizer = self._build_optimizer()

    def train(self) -> Iterator[list[Member]]:
        """Yields the jobs that have ended, epoch by epoch, however they did; one that failed has its error."""
        small = all(parameter.numel() <= _SMALL for parameter in self._views[0].values())
        epoch = 0
        while self.members:
            with torch_threads(1 if small else torch.get_num_threads()):
                ended = self._run_epoch(epoch)
            if ended:
                yield ended
            epoch += 1

    def _run_epoch(self, epoch: int) -> list[Member]:
        """One epoch of all jobs. Returns those that have ended, which are no longer of the stack."""
        started = time.perf_counter()
        train, position = self._train_epoch(epoch)
        outputs = self._evaluate(self._features["val"])
        val = self._task.evaluate_each(outputs.cpu(), self._features["val"].targets.cpu())
        seconds = time.perf_counter() - started
        running, ended = [], []
        for place, member in enumerate(self.members):
            member.fit_seconds += seconds / len(self.members)
            if self._end_epoch(place, member, epoch, train[place], val[place], position, seconds):
                running.append(place)
            else:
                ended.append(member)
        self._keep_only(running)
        return ended

    # One epoch

    def _train_epoch(self, epoch: int) -> tuple[list[dict[str, float]], float]:
        features = self._features["train"]
        dealt = [member.batches(epoch) for member in self.members]
        batches, passes = [found for found, _ in dealt], dealt[0][1]
        collected: list[tuple[Tensor, Tensor, Tensor]] = []
        self._skeleton.train()
        for number, turn in enumerate(passes):
            index = torch.stack([found[number] for found in batches]).to(self._device)
            rows, targets = features.batch(turn, index)
            outputs, losses = self._gradients(rows, targets, number)
            self._clip()
            self._set_rates(epoch + number / len(passes))
            self._optimizer.step()
            self._step += 1
            collected.append((outputs, targets, losses))
            for member in self.members:
                member.images_seen += index.shape[1]
        return self._summaries(collected), epoch + 1 - 1 / len(passes)

    def _gradients(self, rows: Tensor, targets: Tensor, number: int) -> tuple[Tensor, Tensor]:
        seeds = [step_seed(member.config["seed"], self._step, number) for member in self.members if self._random]
        for stacked in self._params.values():
            if stacked.grad is not None:
                stacked.grad.zero_()
        with JobByJob(self._device, seeds), self._precision():
            outputs = vmap(self._outputs)(self._params, rows)
            losses = self._losses(outputs, targets)
        losses.sum().backward()
        self._share_gradients()
        return outputs.detach(), losses.detach()

    def _outputs(self, params: dict[str, Tensor], rows: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._skeleton, params, (rows,))
        return outputs.float()

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """``(jobs,)``. Softmax looks at each row by itself; what works on single numbers rounds by their place."""
        if isinstance(self._task, Multiclass):
            return vmap(self._task.loss)(outputs, targets)
        return torch.stack([self._task.loss(*job) for job in zip(outputs, targets, strict=True)])

    def _share_gradients(self) -> None:
        """After the first step, the slices of the gradients are those of the optimizer's parameters for good."""
        for name, stacked in self._params.items():
            if stacked.grad is None:
                raise RunError(f"trainable parameter head.{name} never received a gradient")
            if self._views[0][name].grad is None:
                for view, grad in zip(self._views, stacked.grad.unbind(0), strict=True):
                    view[name].grad = grad

    def _clip(self) -> None:
        for member, view in zip(self.members, self._views, strict=True):
            trainer = member.config["trainer"]
            if trainer["gradient_clip_val"]:
                clip = clip_grad_value_ if trainer["gradient_clip_algorithm"] == "value" else clip_grad_norm_
                clip(_in_order(member, view), trainer["gradient_clip_val"])

    def _set_rates(self, position: float) -> None:
        rates: dict[int, list[float]] = {}
        for group in self._optimizer.param_groups:
            member: Member = group["member"]
            if id(member) not in rates:
                rates[id(member)] = member.plan.rates(position, plateau=member.plateau_factor)
            group["lr"] = rates[id(member)][group["number"]]

    def _summaries(self, collected: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[dict[str, float]]:
        """The mean loss of each job, and what its task says of the outputs in training."""
        sizes = torch.tensor([targets.shape[1] for _, targets, _ in collected], dtype=torch.float32)
        losses = torch.stack([losses for _, _, losses in collected], dim=1).float().cpu()
        outputs = torch.cat([outputs for outputs, _, _ in collected], dim=1).cpu()
        targets = torch.cat([targets for _, targets, _ in collected], dim=1).cpu()
        return [
            {
                "loss": float((losses[place] * sizes).sum() / sizes.sum()),
                **self._task.training_summary(outputs[place], targets[place]),
            }
            for place in range(len(self.members))
        ]

    @torch.no_grad()
    def _evaluate(self, features: Features) -> Tensor:
        """``(jobs, N, outputs)`` of a split, in the batches in which a single run evaluates."""
        self._skeleton.eval()
        size = evaluation_size(self.members[0].config)
        parts = []
        with JobByJob(self._device), self._precision():
            for index in batches_of(len(features), size):
                rows, _ = features.batch(0, index.to(self._device))
                parts.append(vmap(self._outputs, in_dims=(0, None))(self._params, rows))
        return torch.cat(parts, dim=1)

    # Its end

    def _end_epoch(
        self,
        place: int,
        member: Member,
        epoch: int,
        train: dict[str, float],
        val: dict[str, float],
        position: float,
        seconds: float,
    ) -> bool:
        """Whether the job goes on."""
        try:
            member.end_epoch(epoch, self._step, train, val, position=position, seconds=seconds)
        except DivergedError as error:
            member.error = error
            return False
        if member.improved():
            member.best = member.keep(epoch, self._state(place))
        if place == 0:  # How far all are; the others' files are written once.
            write_metrics(member.run.metrics_file, member.rows)
        if not member.ends(epoch):
            return True
        member.last = member.keep(epoch, self._state(place))
        member.optimizer = {
            name: dict(self._optimizer.state.get(parameter, {})) for name, parameter in self._views[place].items()
        }
        return False

    def _state(self, place: int) -> dict[str, Tensor]:
        return {name: stacked.detach()[place].cpu().clone() for name, stacked in self._params.items()}

    def _keep_only(self, places: list[int]) -> None:
        """Go on with these jobs."""
        if len(places) == len(self.members):
            return
        old, views = self._optimizer, [self._views[place] for place in places]
        self.members = [self.members[place] for place in places]
        if not places:
            return
        chosen = torch.tensor(places, device=self._device)
        self._params = {
            name: stacked.detach().index_select(0, chosen).requires_grad_() for name, stacked in self._params.items()
        }
        self._optimizer = self._build_optimizer()
        for before, now in zip(views, self._views, strict=True):
            for name in self._names:
                if before[name] in old.state:
                    self._optimizer.state[now[name]] = old.state[before[name]]

    # The optimizer

    def _build_optimizer(self) -> Optimizer:
        self._views = [
            {name: Parameter(stacked.detach()[place]) for name, stacked in self._params.items()}
            for place in range(len(self.members))
        ]
        groups: dict[str, dict[str, Any]] = {}
        for member, view in zip(self.members, self._views, strict=True):
            for number, options, parameters in _groups(member, view):
                key = json.dumps([options, _rates_key(member, number)], default=str)
                made = groups.setdefault(key, {**options, "params": [], "member": member, "number": number})
                made["params"] += parameters
        settings = self.members[0].resolved.settings
        return build_optimizer(settings.optimizer, settings.trainer)(list(groups.values()))


def stack_key(member: Member) -> str:
    """What jobs must have in common to be stepped together."""
    config, data = member.config, member.config["datamodule"]
    sizes = [data["batch_size"], data["drop_last"], data["steps_per_epoch"], evaluation_size(config)]
    shapes = [[name, list(parameter.shape)] for name, parameter in member.head.named_parameters()]
    # Torch's fused steps, which round in their own way, are not for all that clip.
    steps = [config["optimizer"]["_target_"], bool(config["trainer"]["gradient_clip_val"])]
    parts = [config["head"], shapes, sizes, config["loss"], config["task"], steps]
    return json.dumps([id(member.splits), *parts], sort_keys=True, default=str)


def job_bytes(member: Member) -> int:
    """Memory that a job needs while it is trained, at most: weights, gradient, two moments, and the best weights."""
    return 5 * sum(parameter.numel() * parameter.element_size() for parameter in member.head.parameters())


def evaluation_size(config: dict[str, Any]) -> int:
    """Images in a batch of evaluation."""
    return int(config["datamodule"]["eval_batch_size"] or config["datamodule"]["batch_size"])


def _groups(member: Member, view: dict[str, Parameter]) -> Iterator[tuple[int, dict[str, Any], list[Parameter]]]:
    """A job's optimizer groups: number, options, parameters."""
    options = {key: value for key, value in member.config["optimizer"].items() if key != "_target_"}
    for number, group in enumerate(member.plan.groups):
        decay = options.get("weight_decay", 0.0) if group.decays else 0.0
        parameters = [view[name.removeprefix("head.")] for name in group.parameters]
        yield number, {**options, "weight_decay": decay}, parameters


def _rates_key(member: Member, number: int) -> Any:
    """The same for groups whose rates are the same at every step."""
    if member.plateau is not None:
        return id(member)
    schedule = member.config["scheduler"]
    return [schedule, member.max_epochs, member.plan.groups[number].multipliers]


def _in_order(member: Member, view: dict[str, Parameter]) -> list[Parameter]:
    return [view[name.removeprefix("head.")] for group in member.plan.groups for name in group.parameters]


def _may_drop(module: nn.Module) -> bool:
    return bool(getattr(module, "p", 0.0)) and "dropout" in type(module).__name__.lower()
