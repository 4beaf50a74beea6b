"""An exponential moving average of the weights, which is what is evaluated and kept."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from headstart.model.modes import named_state


class WeightAverage:
    """The moving average of everything in a model that moves.

    After optimizer step ``n`` (counted from 1) ``average = d * average + (1 - d) * weights`` with
    ``d = min(decay, (1 + n) / (10 + n))``, so that short trainings do not stay with their first weights. BatchNorm's
    running statistics are averaged likewise; its counters are copied.

    Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.

    Args:
        model: whose weights are averaged.
        names: of the parameters and buffers that move.
        decay: between 0 and 1.
    """

    def __init__(self, model: torch.nn.Module, names: frozenset[str], decay: float) -> None:
        self.model, self.decay, self.steps = model, decay, 0
        self.names = tuple(sorted(names))
        self._averages: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}

    @torch.no_grad()
    def start(self) -> None:
        """Begin with the present weights, on their device; goes on from what was loaded, if anything was."""
        state = named_state(self.model)
        known = self._averages
        self._averages = {
            name: known[name].to(state[name].device) if name in known else state[name].detach().clone()
            for name in self.names
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after an optimizer step."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = named_state(self.model)
        smooth = [name for name in self.names if state[name].is_floating_point()]
        averages = [self._averages[name] for name in smooth]
        get_ema_multi_avg_fn(decay)(averages, [state[name].detach() for name in smooth], None)
        for name in set(self.names) - set(smooth):
            self._averages[name].copy_(state[name])

    @torch.no_grad()
    def show(self) -> None:
        """Put the averages into the model; :meth:`hide` puts the weights back."""
        state = named_state(self.model)
        self._own = {name: state[name].detach().clone() for name in self.names}
        self._fill(self._averages)

    @torch.no_grad()
    def hide(self) -> None:
        """Undo :meth:`show`; without it, nothing happens."""
        if self._own:
            self._fill(self._own)
            self._own = {}

    def averages(self) -> dict[str, Tensor]:
        """The averages by name."""
        return dict(self._averages)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs besides the averages: the weights themselves and the number of steps."""
        state = named_state(self.model)
        own = {name: self._own.get(name, state[name]).detach().clone() for name in self.names}
        return {"weights": own, "steps": self.steps}

    def load_state_dict(self, averages: dict[str, Tensor], steps: int) -> None:
        """Go on from a checkpoint."""
        self._averages = {name: averages[name].detach().clone() for name in self.names}
        self.steps = steps

    def _fill(self, values: dict[str, Tensor]) -> None:
        state = named_state(self.model)
        for name in self.names:
            state[name].copy_(values[name])
