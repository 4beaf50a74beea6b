"""``hydra/sweeper=optuna``: search instead of trying everything."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Asks a current Optuna what to try next.

    Args:
        per: the key whose choices each get the whole budget.
        params: values and ranges of keys, in the syntax of the command line; those that are given there come first.
        report: write the report of the study in the end.
        settings: :class:`headstart.launch.search.SearchSettings`.
    """

    def __init__(
        self, per: str = "strategy", params: Mapping[str, str] | None = None, report: bool = True, **settings: Any
    ) -> None:
        from headstart.config.compose import plain

        self.per, self.report, self.settings = per, report, plain(settings)
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that runs the jobs."""
        from hydra.core.plugins import Plugins

        self.loader = hydra_context.config_loader
        self.folder = Path(str(config.hydra.sweep.dir)).absolute()
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search until every arm's budget is used.

        Raises:
            ConfigError: nothing to search, or impossible choices.
            RunError: an arm has no finished trial.
        """
        from headstart.errors import ConfigError
        from headstart.system.extras import require_extra

        require_extra("hydra/sweeper=optuna", "search")
        launcher: Any = self.launcher
        if not hasattr(launcher, "plan"):  # its class may be there twice, because Hydra loads plugins itself
            raise ConfigError("hydra/sweeper=optuna runs its trials with hydra/launcher=process, slurm or ray")
        if launcher.everything_at_once:
            raise ConfigError(
                "hydra/sweeper=optuna learns from trials that have ended, so it must not start all of them at once: "
                "say how many run at a time with hydra.launcher.n_jobs, such as 4"
            )
        from headstart.launch.search import Search, SearchSettings, usual_objectives
        from headstart.launch.search_summary import raise_unless_found, show_search
        from headstart.launch.space import build_space
        from headstart.launch.sweep import write_reports

        parser = OverridesParser.create(config_loader=self.loader)
        given = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        space = build_space(parser.parse_overrides(given), per=self.per)

        def make_job(overrides: Sequence[str], number: int, label: str) -> Any:
            [job] = launcher.plan([overrides], number, label=label)
            return job

        settings = dict(self.settings)
        if settings.get("objectives") is None:
            run = make_job([*space.fixed, *filter(None, space.arms[:1])], 0, "what is looked for").run
            monitor = None if run is None else run.settings.callbacks.checkpoint.monitor
            settings["objectives"] = usual_objectives("auto" if run is None else run.settings.task, monitor)
        search = Search(space, SearchSettings(**settings), self.folder, make_job)
        search.run(launcher.pool())
        show_search(search)
        if self.report:
            write_reports([self.folder])
        raise_unless_found(search)
        return search.outcomes
