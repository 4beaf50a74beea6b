"""Reads back what an offline run of Weights & Biases has stored, without a server or an account.

The file is a log in LevelDB's framing: blocks of 32 KiB, records cut into checksummed pieces. Each record is a
protocol buffer of the installed wandb.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FILE_HEADER = 7
_PIECE_HEADER = struct.Struct("<IHB")  # checksum, length, type
_FULL, _FIRST, _LAST = 1, 2, 4


@dataclass
class OfflineRun:
    """The content of one ``run-<id>.wandb`` file.

    Attributes:
        run_id: as in the web address.
        name: shown for the run.
        group: of runs to compare.
        job_type: shown within the group.
        config: values by key.
        history: one dictionary a step.
        summary: last or explicitly set values.
        exit_code: None where the run was never finished.
    """

    run_id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def find_offline_runs(folder: str | Path) -> list[Path]:
    """All offline run files below ``folder``, sorted."""
    return sorted(Path(folder).rglob("offline-run-*/run-*.wandb"))


def read_offline_run(path: str | Path) -> OfflineRun:
    """Read one file; a torn end, as a killed process leaves it, is left out."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    run = OfflineRun()
    for data in _records(Path(path).read_bytes()):
        record = Record.FromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            new = record.run
            run.run_id, run.project, run.name = new.run_id, new.project, new.display_name
            run.group, run.job_type = new.run_group, new.job_type
            _update(run.config, new.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.history.append(row)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _update(values: dict[str, Any], items: Any) -> None:
    for item in items:
        values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)


def _records(data: bytes) -> Iterator[bytes]:
    position, parts = _FILE_HEADER, b""
    while position + _PIECE_HEADER.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _PIECE_HEADER.size:  # a block's end too short for a header is padding
            position += left
            continue
        _, length, kind = _PIECE_HEADER.unpack_from(data, position)
        start = position + _PIECE_HEADER.size
        if kind == 0 or start + length > len(data):
            return
        parts = data[start : start + length] if kind in (_FULL, _FIRST) else parts + data[start : start + length]
        if kind in (_FULL, _LAST):
            yield parts
        position = start + length
