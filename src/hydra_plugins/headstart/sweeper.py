"""``hydra/sweeper=grid``: every combination of the values that are separated by commas."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser


# Hydra's grid is internal to it, and so is how it reads params (_parse_config); a copy would split values differently
# one day. pyproject.toml bounds Hydra below its next minor version.
class GridSweeper(BasicSweeper):
    """Hydra's own sweep, with the outcome of each job and the study's report at the end.

    Args:
        params: values of keys, in the syntax of the command line; those that are given there come first.
        report: write the report of the study when all jobs have ended.
    """

    def __init__(self, params: dict[str, str] | None = None, report: bool = True) -> None:
        super().__init__(max_batch_size=None, params=params)
        self.report = report

    def sweep(self, arguments: list[str]) -> Any:
        """Run every combination.

        Raises:
            SweepError: some failed; the others are complete.
        """
        # Not by its class: Hydra loads each plugin's module once more than Python does, and makes two of every class.
        launcher: Any = self.launcher
        if not hasattr(launcher, "plan"):
            return super().sweep(arguments)
        assert self.hydra_context is not None
        assert self.config is not None
        from headstart.launch.sweep import (
            check_jobs,
            raise_failures,
            run_sweep,
            show_plan,
            show_summary,
            write_reports,
        )

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        [batch] = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        jobs = launcher.plan(batch)
        check_jobs(jobs)
        if any(job.run is not None and job.run.settings.study.protocol == "tuned" for job in jobs):
            from headstart.launch.tuning import tuned_jobs

            jobs = tuned_jobs(jobs, batch, launcher)
        if any(job.run is not None and job.run.settings.plan for job in jobs):
            show_plan(jobs)
            return []
        outcomes = run_sweep(jobs, launcher.pool())
        show_summary(outcomes)
        if self.report:
            write_reports(outcome.job.study_dir for outcome in outcomes if outcome.done)
        raise_failures(outcomes)
        return outcomes
