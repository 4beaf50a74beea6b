"""Ordered stages of any network, from its own ``group_matcher`` and one traced forward pass.

No architecture is named here. The matcher says which parameters belong together; the trace says in which order the
groups run, which stateless modules (dropout, pooling, activations) run within or after which group, and which
module's output ends a stage.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from torch import nn

from headstart.backbones.contract import Stage
from headstart.backbones.trace import Call, Trace, only_tensor, owners

PRE_LOGITS = "pre_logits"

Groups = list[list[str]]

# Groups of one layer each are too fine to be stages if they are the rule.
_FINE_SHARE = 0.75


def build_stages(network: nn.Module, trace: Trace, *, pre_logits: frozenset[str] = frozenset()) -> tuple[Stage, ...]:
    """The stages of a timm model without its classifier, in the order in which they run in the trace.

    ``pre_logits`` names the parameters between the feature map and the classifier; they are a last stage.
    """
    names = [name for name, _ in network.named_parameters() if name not in pre_logits]
    groups = _in_order(_groups(network, names), trace)
    merged = _merge_layers(network, groups, trace)
    labels = [f"block{number + 1}" for number in range(len(merged))] if merged else _labels(groups)
    groups = merged or groups
    if pre_logits:
        groups.append([name for name, _ in network.named_parameters() if name in pre_logits])
        labels.append(PRE_LOGITS)
    return _assign(network, trace, groups, labels)


def _assign(network: nn.Module, trace: Trace, groups: Groups, labels: Sequence[str]) -> tuple[Stage, ...]:
    """Stages from groups of parameter names: each buffer and module goes to one of them."""
    stage_of = {name: number for number, group in enumerate(groups) for name in group}
    own = _own_stages(network, stage_of)
    modules = _module_stages(network, trace, own)
    buffers: dict[int, list[str]] = defaultdict(list)
    for name, _ in network.named_buffers():
        buffers[modules[name.rpartition(".")[0]]].append(name)
    ends = _ends(trace, own, modules, len(groups))
    return tuple(
        Stage(
            name=label,
            parameters=tuple(group),
            buffers=tuple(buffers[number]),
            modules=tuple(module for module, stage in modules.items() if stage == number),
            end=ends[number],
        )
        for number, (label, group) in enumerate(zip(labels, groups, strict=True))
    )


def _groups(network: nn.Module, names: Sequence[str]) -> Groups:
    """The matcher's coarse groups; its fine ones, then the network's children, where that gives no order."""
    for coarse in (True, False):
        groups = _matched(network, names, coarse=coarse)
        if len(groups) > 1:
            return groups
    return _by_child(network, names)


def _matched(network: nn.Module, names: Sequence[str], *, coarse: bool) -> Groups:
    from timm.models import group_parameters

    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        return []
    try:
        found: Mapping[int, list[str]] = group_parameters(network, matcher(coarse=coarse))
    except (AssertionError, NotImplementedError, TypeError):
        return []  # Some networks offer only one of the two.
    wanted = set(names)
    groups = [[name for name in group if name in wanted] for _, group in sorted(found.items())]
    return [group for group in groups if group]


def _by_child(network: nn.Module, names: Sequence[str]) -> Groups:
    """One group a child; a container's children count as the network's own."""
    containers = {
        name
        for name, child in network.named_children()
        if isinstance(child, nn.Sequential | nn.ModuleList) and len(list(child.children())) > 1
    }
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts = name.split(".")
        depth = 2 if parts[0] in containers else 1
        groups[".".join(parts[:depth]) if len(parts) > 1 else ""].append(name)
    loose = groups.pop("", [])
    result = list(groups.values())
    if not result:
        return [loose]
    result[0] = loose + result[0]
    return result


def _in_order(groups: Groups, trace: Trace) -> Groups:
    """Sorted by the first call of a module that owns parameters of the group; uncalled groups stay behind theirs."""
    first: dict[str, int] = {}
    for call in trace.calls:
        first.setdefault(call.module, call.started)
    keys: list[float] = []
    for group in groups:
        starts = [first[owner] for name in group if (owner := name.rpartition(".")[0]) in first]
        keys.append(min(starts) if starts else keys[-1] if keys else -1.0)
    return [group for _, group in sorted(zip(keys, groups, strict=True), key=lambda pair: pair[0])]


def _merge_layers(network: nn.Module, groups: Groups, trace: Trace) -> Groups | None:
    """Groups joined between the network's changes of resolution, if they are single layers; else None."""
    single = sum(len({name.rpartition(".")[0] for name in group}) == 1 for group in groups)
    info = getattr(network, "feature_info", None)
    if info is None or single < _FINE_SHARE * len(groups):
        return None
    points = [point for point in getattr(info, "info", info) if "module" in point]
    ended = {call.module: call.ended for call in trace.calls if call.ended is not None}
    limits = [ended[point["module"]] for point in points if point["module"] in ended]
    changes = all(a["reduction"] < b["reduction"] for a, b in pairwise(points))
    if len(limits) != len(points) or not changes or len(limits) < 2:
        return None
    merged: Groups = [[] for _ in range(len(limits) + 1)]
    for group in groups:
        last = max((ended.get(name.rpartition(".")[0], 0) for name in group), default=0)
        merged[sum(limit < last for limit in limits)].extend(group)
    return [group for group in merged if group]


def _labels(groups: Groups) -> list[str]:
    # What all names begin with (``features.``, ``body.``) tells no stage from another.
    shared = len(_common([name.split(".")[:-1] for group in groups for name in group]))
    labels: list[str] = []
    for number, group in enumerate(groups):
        label = _label([".".join(name.split(".")[shared:]) for name in group], first=number == 0)
        labels.append(label if label not in labels else f"{label}_{labels.count(label) + 1}")
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    return [f"stage{number}" for number in range(len(groups))] if repeated else labels


def _label(group: Sequence[str], *, first: bool) -> str:
    """``layer1``, ``block3``, ``stem``: what the names of the parameters have in common."""
    common = _common([name.split(".")[:-1] for name in group])
    if not common:
        if first:
            return "patch_embed" if any(name.startswith("patch_embed.") for name in group) else "stem"
        largest, _ = Counter(name.split(".")[0] for name in group).most_common(1)[0]
        common = _common([name.split(".")[:-1] for name in group if name.split(".")[0] == largest])
    numbers = [number for number, part in enumerate(common) if part.isdigit()]
    if not numbers:
        return common[0] if common else group[0]
    parts = common[: numbers[0] + 1]
    owner = parts[-2] if len(parts) > 1 else "stage"
    owner = owner.removesuffix("s") if not owner.endswith("ss") else owner
    owner += "_" if owner[-1].isdigit() else ""
    return "stem" if first and owner == "stem" else f"{owner}{parts[-1]}"


def _common(paths: Sequence[Sequence[str]]) -> list[str]:
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _own_stages(network: nn.Module, stage_of: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Of each module, the stages of the parameters that it and its children hold."""
    held: dict[str, set[int]] = {name: set() for name, _ in network.named_modules()}
    for name, stage in stage_of.items():
        for owner in owners(name):
            held[owner].add(stage)
    return {name: frozenset(stages) for name, stages in held.items()}


def _module_stages(network: nn.Module, trace: Trace, own: Mapping[str, frozenset[int]]) -> dict[str, int]:
    """The stage whose mode each module follows.

    A module over several stages follows the first of them, so that nothing in a frozen prefix can be random.
    """
    after = _stateless_calls(trace, own)
    stages: dict[str, int] = {}
    previous = 0
    for name, _ in network.named_modules():
        if own[name]:
            stages[name] = min(own[name])
        else:
            around = next(owner for owner in owners(name) if own[owner])
            inside = len(own[around]) == 1
            stages[name] = stages[around] if inside else after.get(name, previous)
        previous = stages[name] if name and len(own[name]) <= 1 else previous
    return stages


def _stateless_calls(trace: Trace, own: Mapping[str, frozenset[int]]) -> dict[str, int]:
    """Modules without parameters that run between stages belong to the one that ran last."""
    after: dict[str, int] = {}
    current = 0
    for call in trace.calls:
        if len(own[call.module]) == 1:
            current = max(own[call.module])
        elif not own[call.module]:
            after.setdefault(call.module, current)
    return after


def _ends(trace: Trace, own: Mapping[str, frozenset[int]], modules: Mapping[str, int], count: int) -> list[str | None]:
    """Of each stage, the last module to return one tensor before the next stage begins."""
    times = Counter(call.module for call in trace.calls)

    def begins(stage: int) -> float:
        later = (c.started for c in trace.calls if len(own[c.module]) == 1 and min(own[c.module]) > stage)
        return min(later, default=math.inf)

    def may_end(call: Call, stage: int) -> bool:
        return (
            len(own[call.module]) <= 1
            and modules[call.module] == stage
            and times[call.module] == 1
            and only_tensor(call.output) is not None
            and call.ended is not None
            and call.ended < begins(stage)
        )

    ends: list[str | None] = []
    for stage in range(count):
        calls = [call for call in trace.calls if may_end(call, stage)]
        ends.append(max(calls, key=lambda call: call.ended or 0).module if calls else None)
    return ends


def renamed(stages: Iterable[Stage], change: Callable[[str], str]) -> tuple[Stage, ...]:
    """The same stages with every name of a parameter, buffer and module changed."""
    return tuple(
        Stage(
            stage.name,
            parameters=tuple(map(change, stage.parameters)),
            buffers=tuple(map(change, stage.buffers)),
            modules=tuple(map(change, stage.modules)),
            end=None if stage.end is None else change(stage.end),
        )
        for stage in stages
    )
