"""A study from Python: the runs that were made to be compared, and their report. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError
from headstart.execution.train import Run
from headstart.runs.reader import read_runs

if TYPE_CHECKING:
    from headstart.study.report import Report


@dataclass(frozen=True)
class Study:
    """The finished runs of a study's folder.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def runs(self) -> list[Run]:
        """Every finished run below the folder, in the order of their names."""
        return [Run(run.path, run.result) for run in read_runs(self.path) if run.status == "done"]

    def report(self, **choices: Any) -> "Report":
        """Compare the runs and write ``report.html`` into the folder.

        Args:
            choices: of :func:`headstart.study.report.write_report`: ``contrast``, ``reference``, ``metric``, ...
        """
        from headstart.study.report import write_report

        return write_report(self.path, **choices)

    def rows(self) -> list[dict[str, Any]]:
        """A flat mapping for each run: its choices, its metrics, seconds and place."""
        return [
            {
                **{key: value for key, value in run.result.config.items() if key != "overrides"},
                **run.metrics,
                "total_seconds": run.result.cost.total_seconds,
                "path": str(run.path),
            }
            for run in self.runs
        ]

    def to_frame(self) -> Any:
        """:meth:`rows` as a pandas ``DataFrame``.

        Raises:
            HeadstartError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise HeadstartError("Study.to_frame() needs pandas: pip install pandas, or use Study.rows()") from None
        return pd.DataFrame(self.rows())
