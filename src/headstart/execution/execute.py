"""The straight line of a run, from the data to ``result.json``."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping

from headstart.config import ResolvedRun, RunSettings
from headstart.config.check import check_strategy
from headstart.execution.assemble import (
    Prepared,
    build_bare_trainer,
    build_loaders,
    build_module,
    prepare_strategy,
    static_folder,
)
from headstart.execution.batches import check_batches, check_phases_ran, cut_short
from headstart.execution.outcome import Answered, build_result, count_parameters, device_name, prove, write_down
from headstart.execution.peers import FOLLOWED, among_peers, watch_peers
from headstart.execution.summary import data_notice, views_notice
from headstart.execution.surroundings import build_surroundings
from headstart.frozen.closed_form import PHASE, answers, collect, solve_head
from headstart.heads import ClosedForm
from headstart.model.head_init import calibrate, initialise_head
from headstart.model.transfer_model import TransferModel
from headstart.runs.directory import Attempt, RunDirectory
from headstart.runs.result import Result
from headstart.store.activations import CachedData
from headstart.strategies.contract import Extras, Strategy, Surroundings
from headstart.system.console import show
from headstart.system.digests import digest
from headstart.tasks import Task
from headstart.tasks.predictions import ScoredModel
from headstart.tracking.loggers import build_loggers, finish_loggers
from headstart.training.assemble import build_backbone, build_data, build_data_task, build_head
from headstart.training.audit import audit_table, raise_violations
from headstart.training.checkpoints import (
    AtomicCheckpointIO,
    build_checkpoints,
    load_weights,
    save_best,
    save_final,
    share_static,
)
from headstart.training.cost import CostMeter
from headstart.training.module import TransferModule
from headstart.training.progress import BarProgress, shows_bar
from headstart.training.quiet import quiet_lightning
from headstart.training.rows import Row, append_row, epoch_line
from headstart.training.seeds import StepSeed, seed_stream
from headstart.weights.report import weights_notice


def execute(resolved: ResolvedRun, run: RunDirectory, *, resume: bool, owner: bool) -> Result:
    """Train, prove, test and write down one run; ``run`` is locked and open.

    Args:
        resolved: what to run.
        run: where.
        resume: go on from the last checkpoint.
        owner: whether this process writes; the others of a distributed run only compute.

    Raises:
        HeadstartError: the data or weights cannot be used, the training diverged, or the audit failed.
    """
    started = time.perf_counter()
    quiet_lightning()
    attempt = run.attempt() if owner else None
    settings = resolved.settings
    strategy, surroundings, model = prepare_model(resolved)
    task, solved = surroundings.task, isinstance(model.head, ClosedForm)
    prepared = prepare_strategy(settings, strategy, model)
    check_batches(settings.trainer, surroundings.data, prepared)
    extras = Extras() if solved else strategy.start(model, surroundings)
    module = None if solved else build_module(settings, prepared, task, extras)
    loaders = build_loaders(settings, surroundings.data, prepared, extras)
    prepared.audit.start()
    if owner:
        share_static(run.checkpoints, static_folder(run.path), prepared.static_state())
        _announce(prepared, loaders)
    loggers = build_loggers(settings.logger, run_dir=run.path, resolved=resolved) if owner else []
    meter = CostMeter(attempt, apart=lambda: loaders.seconds, since=attempt.began if attempt else None)
    scored: ScoredModel
    try:
        if module is None:
            trainer = loaders.trainer = build_bare_trainer(settings.trainer)
            scored, result = solve(resolved, run, prepared, task, loaders, meter, loggers)
        else:
            trainer = build_trainer(settings, run, module, loaders, meter, loggers)
            fit(trainer, module, loaders, run, resume=resume)
            scored, result = module, conclude(resolved, run, trainer, module, loaders, prepared, strategy)
        if owner:
            assert attempt is not None
            elapsed = time.perf_counter() - started
            attempt.record(ended=True, device=device_name(trainer), **_cold_seconds(elapsed, loaders, attempt))
            result = write_down(result, run, attempt, scored, loaders.data, loggers, resolved)
    except BaseException:
        finish_loggers(loggers, exit_code=1)
        raise
    finish_loggers(loggers, exit_code=0)
    return result


def prepare_model(resolved: ResolvedRun) -> tuple[Strategy, Surroundings, TransferModel]:
    """The strategy, what it gets to see (data and task among it), and the model as it wants it before training."""
    settings, seed = resolved.settings, resolved.settings.seed
    strategy: Strategy = settings.strategy.build()
    check_strategy(resolved.config, strategy)
    data = build_data(settings.datamodule, seed=seed, task=settings.task)
    image_size = settings.datamodule.arguments.get("image_size")
    backbone = build_backbone(settings.backbone, resolved.weights, seed=seed, image_size=image_size)
    data.configure(backbone.input_spec)
    task = build_data_task(settings, data)
    model = TransferModel(backbone, build_head(settings.head, backbone, task, seed=seed))
    surroundings = build_surroundings(settings, strategy, backbone, task, data)
    if settings.head_init != "default":
        initialise_head(model, settings.head_init, data, task, surroundings.device)
    seed_stream(seed, "strategy")
    strategy.prepare(model, surroundings)
    if settings.head_init == "probe":
        prepare_strategy(settings, strategy, model).show_phase(0)
        calibrate(model, data, task, surroundings.device)
    return strategy, surroundings, model


def build_trainer(
    settings: RunSettings,
    run: RunDirectory,
    module: TransferModule,
    loaders: CachedData,
    meter: CostMeter,
    loggers: list[Any],
) -> pl.Trainer:
    """Lightning's trainer with this run's callbacks; its own switches pass through."""
    switches, callbacks, task = dict(settings.trainer.switches), settings.callbacks, module.task
    module.on_row = partial(_note_row, settings=settings, run=run)
    stopping = callbacks.early_stopping
    built: list[pl.Callback] = [
        StepSeed(settings.seed),
        meter,
        *build_checkpoints(
            run.checkpoints,
            monitor=task.monitor,
            mode=task.monitor_mode,
            every_n_epochs=callbacks.checkpoint.every_n_epochs,
        ),
        *([BarProgress()] if shows_bar(callbacks.progress) else []),
    ]
    if stopping.enabled:
        kind = EarlyStopping if settings.extend else StaysStopped
        patience, delta = stopping.patience, stopping.min_delta
        built.append(kind(task.monitor, mode=task.monitor_mode, patience=patience, min_delta=delta))
    several = settings.trainer.distributed and len(module.plan.phases) > 1
    if several and settings.trainer.strategy in ("ddp", "auto"):
        # What is frozen in the present phase takes no part in the backward pass.
        switches["strategy"] = "ddp_find_unused_parameters_true"
    if loaders.phases_differ:
        switches["reload_dataloaders_every_n_epochs"] = 1
    trainer = pl.Trainer(
        **switches,
        default_root_dir=run.path,
        logger=loggers or False,
        callbacks=built,
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_model_summary=False,
        enable_checkpointing=True,
        enable_progress_bar=False,
    )
    watch_peers(trainer)
    return trainer


def fit(trainer: pl.Trainer, module: TransferModule, loaders: CachedData, run: RunDirectory, *, resume: bool) -> None:
    """Train through all phases, from the last checkpoint where there is one.

    Raises:
        KeyboardInterrupt: the user stopped it; the same command goes on from the last epoch's end.
    """
    checkpoint = run.last_checkpoint if resume and run.last_checkpoint.exists() else None
    seed_stream(loaders.data.seed, "training")
    with _stopped_by_signals(trainer):
        trainer.fit(module, datamodule=loaders, ckpt_path=checkpoint, weights_only=True)


class StaysStopped(EarlyStopping):
    """Ends a training at once that had been ended before it was resumed, such as by a kill while it was scored."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning remembers how long the metric has not become better, and not that this ended the training."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


@contextmanager
def _stopped_by_signals(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM while Lightning runs end in a KeyboardInterrupt.

    Lightning exits after the first, and looks out for the second between two batches only: one that came during the
    last would go unheard. Where another process of the run ends too early, this one ends as well.
    """
    try:
        with among_peers(trainer):
            yield
    except SystemExit as asked:
        if asked.code == FOLLOWED:
            raise
        raise KeyboardInterrupt from None
    if trainer.received_sigterm:
        raise KeyboardInterrupt


def conclude(
    resolved: ResolvedRun,
    run: RunDirectory,
    trainer: pl.Trainer,
    module: TransferModule,
    loaders: CachedData,
    prepared: Prepared,
    strategy: Strategy,
) -> Result:
    """Prove what learned, then score the checkpoint that validation chose on validation and, once, on test.

    Raises:
        AuditError: something frozen moved, or something trainable never received a gradient.
        RunError: training ended before the strategy's last phase.
    """
    switches, audit = resolved.settings.trainer.switches, prove(run, prepared, owner=trainer.is_global_zero)
    check_phases_ran(trainer, module, audit, switches)
    raise_violations(audit)
    epochs, cut = trainer.current_epoch, cut_short(trainer, switches)
    best = load_weights(module.model, run.checkpoints) if run.best_checkpoint.exists() else None
    strategy.merge(module.model)
    chosen = module.extras.finish(module.model, lambda: _validate(trainer, module, loaders))
    if chosen and trainer.is_global_zero:
        save_final(module.model, run.checkpoints)
    _validate(trainer, module, loaders)
    if loaders.data.has_test:
        with _stopped_by_signals(trainer):
            trainer.test(module, datamodule=loaders, verbose=False)
    return build_result(
        resolved,
        module,
        loaders,
        audit,
        other_metrics=module.other_metrics,
        params=count_parameters(prepared.audit),
        best_epoch=best,
        epochs=epochs,
        precision=str(trainer.precision),
        details={
            **({"strategy": chosen} if chosen else {}),
            **({"cut_short": cut} if cut else {}),
            **module.choice.record(),
        },
    )


def solve(
    resolved: ResolvedRun,
    run: RunDirectory,
    prepared: Prepared,
    task: Task,
    loaders: CachedData,
    meter: CostMeter,
    loggers: list[Any],
) -> tuple[Answered, Result]:
    """What :func:`fit` and :func:`conclude` do, for a head in closed form.

    Raises:
        AuditError: something frozen moved, or the head was not solved for.
    """
    settings, model, trainer = resolved.settings, prepared.model, loaders.trainer
    assert trainer is not None
    assert isinstance(model.head, ClosedForm)
    meter.start(trainer.strategy.root_device)
    prepared.show_phase(0)
    watched = shows_bar(settings.callbacks.progress)
    solved = solve_head(model, task, prepared.audit, loaders, progress=watched)
    meter.images_seen = solved.images_seen
    meter.report()
    row: Row = {"epoch": 0, "step": 0, "phase": PHASE, **solved.metrics, "seconds": round(meter.fit_seconds, 3)}
    _note_row(row, settings, run)
    for logger in loggers:
        logger.log_metrics({**solved.metrics, "epoch": 0}, step=0)
    audit, cut = prove(run, prepared), cut_short(trainer, settings.trainer.switches)
    raise_violations(audit)
    scored = Answered(model, task, {"val": solved.val})
    if loaders.data.has_test and trainer.limit_test_batches != 0:
        scored.predictions["test"] = answers(model.head, *collect(model, loaders, "test", progress=watched), task)
    loaders.teardown("fit")
    model.cpu()
    tried = bool(settings.trainer.switches.get("fast_dev_run"))
    kept = model.head.state_dict(prefix="head.")
    if not tried:
        save_best(run.checkpoints, kept, epoch=0, static_digest=digest(prepared.static_state()))
    solution = {"closed_form": solved.solution.record(refit=model.head.refit)}
    return scored, build_result(
        resolved,
        scored,
        loaders,
        audit,
        # A solved head may keep more than parameters: its bank.
        params={**count_parameters(prepared.audit), "stored": sum(tensor.numel() for tensor in kept.values())},
        best_epoch=None if tried else 0,
        epochs=1,
        precision=str(trainer.precision),
        details={**({"cut_short": cut} if cut else {}), **solution},
    )


def _announce(prepared: Prepared, loaders: CachedData) -> None:
    show(data_notice(loaders.data.summary()))
    show(weights_notice(prepared.model.backbone.weights))
    phases = prepared.plan.phases
    for index, phase in enumerate(phases):
        title = f"{phase.name}, epochs {phase.start_epoch + 1} to {phase.end_epoch}" if len(phases) > 1 else ""
        show(audit_table(prepared.show_phase(index), title=title))
    views, epochs = loaders.views
    if views:
        show(views_notice(views, images=loaders.data.sizes["train"], epochs=epochs))
    for notice in loaders.notices():
        show(f"not stored: {notice}")


def _note_row(row: Row, settings: RunSettings, run: RunDirectory) -> None:
    append_row(run.metrics_file, row)
    if settings.callbacks.progress != "none":
        show(epoch_line(row, settings.trainer.max_epochs, settings.callbacks.checkpoint.monitor))


def _cold_seconds(elapsed: float, loaders: CachedData, attempt: Attempt) -> dict[str, float]:
    """Costs as if nothing had been stored before: what was found is counted at the price of making it, once a run."""
    extracted = max(0.0, loaders.extract_seconds - attempt.earlier.extract_seconds)
    total = elapsed - loaders.seconds + extracted
    return {"total_seconds": round(total, 3), "extract_seconds": round(extracted, 3)}


def _validate(trainer: pl.Trainer, module: TransferModule, loaders: CachedData) -> float:
    """Score on validation; higher is better whatever the metric."""
    with _stopped_by_signals(trainer):
        trainer.validate(module, datamodule=loaders, verbose=False)
    value = module.predictions["val"].metrics[module.task.monitor.removeprefix("val/")]
    return value if module.task.monitor_mode == "max" else -value
