"""The command line as a user meets it: help, one-line errors, exit codes, sweeps, start-up without torch."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from headstart.commands import cli

#: Stands in for training: checks in a moment, and says what it was asked for.
FAKE_TRAINING = """
import os, sys
from types import SimpleNamespace
from headstart.errors import AuditError

def train(run):
    print("trained", run.key, "torch" in sys.modules, sys.argv[1:], flush=True)
    outcome = os.environ.get("OUTCOME", "")
    if outcome == f"fail {run.config['seed']}":
        raise AuditError("layer1 moved")
    if outcome == "crash":
        raise RuntimeError("a bug")
    if outcome == "stop":
        raise KeyboardInterrupt
    status = "partial" if outcome == "partial" else "done"
    result = SimpleNamespace(status=status, error=None, metrics={"val/acc": 0.5}, details={"monitor": "val/acc"})
    return SimpleNamespace(result=result)
"""


@pytest.fixture
def command(tmp_path: Path, repository: Path):
    """Runs the train command in a process of its own, with the stand-in where ``fake`` is asked for."""
    stand_in = tmp_path / "stand_in"
    stand_in.mkdir()
    (stand_in / "sitecustomize.py").write_text(
        f"import sys, types\nm = types.ModuleType('headstart.execution.train')\nsource = {FAKE_TRAINING!r}\n"
        "class Lazy(types.ModuleType):\n"
        "    def __getattr__(self, name):\n"
        "        if name != 'train': raise AttributeError(name)\n"
        "        exec(source, self.__dict__); return self.__dict__['train']\n"
        "sys.modules['headstart.execution.train'] = Lazy('headstart.execution.train')\n"
    )
    work = tmp_path / "work"
    work.mkdir()

    def run(*arguments: str, outcome: str = "", fake: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OUTCOME": outcome, "COLUMNS": "100"}
        if fake:
            environment["PYTHONPATH"] = os.pathsep.join([str(stand_in), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, str(repository / "train.py"), *arguments],
            cwd=work,
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
        )

    run.work = work  # type: ignore[attr-defined]
    return run


def test_a_complete_result_is_exit_code_0_and_leaves_no_folders_of_hydra(command):
    done = command("backbone.weights=bundled")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("trained digits-resnet18-linear-freeze-s1 False")
    assert list(command.work.iterdir()) == []


def test_an_incomplete_result_is_exit_code_1(command):
    done = command("backbone.weights=bundled", outcome="partial")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: the run is not complete: partial"


def test_a_failed_job_is_one_line(command):
    done = command("backbone.weights=bundled", outcome="fail 1")
    assert (done.returncode, done.stderr) == (1, "error: layer1 moved\n")


def test_a_bug_shows_its_traceback(command):
    done = command("backbone.weights=bundled", outcome="crash")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.strip().endswith("error: RuntimeError: a bug")


def test_ctrl_c_is_short_and_130(command):
    done = command("backbone.weights=bundled", outcome="stop")
    assert done.returncode == 130
    assert done.stderr.strip() == "interrupted; the same command goes on from the last finished epoch"


@pytest.mark.parametrize(
    ("name", "told"), [("inspect", "interrupted"), ("advise", "interrupted; the same command goes on")]
)
def test_ctrl_c_promises_no_epochs_where_there_are_none(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"headstart.commands.{name}.main", stopped)
    assert cli.main([name]) == 130
    assert capsys.readouterr().err.strip() == told


def test_ctrl_c_that_makes_the_composition_fail_is_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(*choices: object, **more: object) -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AttributeError

    monkeypatch.setattr("omegaconf.DictConfig._set_value_impl", stopped)
    assert cli.train_main(["strategy=full"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; the same command goes on from the last finished epoch"


def test_a_sweep_runs_every_job_and_says_which_failed(command):
    in_process = ("backbone.weights=bundled", "hydra/launcher=basic")
    done = command("strategy=freeze,full", "-m", "seed=1,2", *in_process, outcome="fail 2")
    assert done.returncode == 1
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("trained")] == [
        f"digits-resnet18-linear-{strategy}-s{seed}" for strategy in ("freeze", "full") for seed in (1, 2)
    ]
    assert "[strategy=freeze seed=2 backbone.weights=bundled] error: layer1 moved" in done.stderr
    assert "error: 2 of 4 runs failed; the others are complete" in done.stderr
    assert "Traceback" not in done.stderr
    assert command("-m", "seed=1,2", *in_process).returncode == 0


def test_a_job_sees_the_arguments_of_the_process(command):
    """Lightning starts the other ranks by repeating them, in Hydra's order or not."""
    arguments = ("seed=3", "--multirun", "strategy=full", "backbone.weights=bundled", "hydra/launcher=basic")
    assert str(list(arguments)) in command(*arguments).stdout


def test_a_wrong_job_costs_no_heavy_import(command, repository: Path):
    code = (
        "import sys; from headstart.commands.cli import train_main; code = train_main(['optimizer.lr=fast']);"
        "print(code, [m for m in ('torch', 'timm', 'pytorch_lightning', 'torchvision', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository)
    assert done.stdout.strip() == "1 []"
    assert done.stderr.strip() == "error: optimizer.lr=fast: must be a number above 0"


ERRORS = [
    (["backbone=resnet19"], "error: backbone=resnet19 is unknown; did you mean resnet18?"),
    (["backbon=resnet18"], "error: backbon is unknown; did you mean backbone?"),
    (["logger=[wandbb]"], "error: logger=wandbb is unknown; did you mean wandb?"),
    (["trainer.max_epoch=3"], "error: trainer.max_epoch is unknown; did you mean trainer.max_epochs?"),
    (["callbacks.lr_monitor=true"], "error: callbacks.lr_monitor is no key any more: learning rates are always logged"),
    (["lr=1"], "error: lr is unknown; did you mean optimizer.lr?"),
    (
        ["datamodule.root=/x"],
        "error: datamodule.root is unknown here; it belongs to datamodule=csv or datamodule=folder",
    ),
    (["strategy.where=first"], "error: strategy.where is unknown here; it belongs to strategy=partial"),
    (["freeze"], "error: 'freeze' is not of the form key=value; did you mean strategy=freeze?"),
    (["--strategy=full"], "error: '--strategy=full' is no switch; choices have no dashes: strategy=full"),
    (["/"], "error: '/' is not of the form key=value; a folder of images is datamodule=folder datamodule.root=/"),
    (
        ["strategy=freeze,full"],
        "error: strategy=freeze,full gives several values: add -m to run each of them (from Python: headstart.sweep)",
    ),
    (
        ["seed=1,2"],
        "error: seed=1,2 gives several values: add -m to run each of them (from Python: headstart.sweep), "
        "or write seed=[1,2]",
    ),
    (
        ["datamodule=folder", "datamodule.root=/tmp/a,b"],
        ", or write 'datamodule.root=\"/tmp/a,b\"' for one with a comma",
    ),
    (["datamodule=folder"], "error: datamodule.root is required here and has no default; give datamodule.root=..."),
    (["datamodule.root=/a=b"], "needs quotes inside quotes: 'datamodule.root=\"/a=b\"'"),
    (["datamodule.root=/tmp/Bob's photos (1)"], """quotes: 'datamodule.root="/tmp/Bob'"'"'s photos (1)"'"""),
    (["name=${nothing}"], "error: name refers to something that is not there"),
    (["name=${oc.env:NO_SUCH_VARIABLE}"], "Environment variable 'NO_SUCH_VARIABLE' not found"),
    (["+optimizer.lr=1"], "error: +optimizer.lr: optimizer.lr is there already; leave out the +"),
    (["+backbone=resnet18"], "error: +backbone: backbone is there already; leave out the +"),
    (["~optimizer.lrr"], "error: ~optimizer.lrr: there is no optimizer.lrr to remove; did you mean optimizer.lr?"),
    (["optimizer="], "error: optimizer=: choose one of adam, adamw, rmsprop, sgd"),
    (["data=folder"], "error: data is unknown; did you mean datamodule=folder?"),
    (["model=resnet50"], "error: model is unknown; did you mean backbone=resnet50?"),
    (["optimizer=null"], "error: optimizer=null: choose one of adam, adamw, rmsprop, sgd"),
    (["backbone.name.x=1"], "error: backbone.name.x=1: backbone.name is a single value, not a group of keys"),
    (["hydra.run.di=1"], "error: hydra.run.di is none of Hydra's own settings"),
    (["--config-dir", "nowhere"], "error: Additional config directory"),
    (["backbone.weights=bundeld"], "error: backbone.weights=bundeld: there is no such file"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), ERRORS, ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else ""
)
def test_a_mistake_is_one_line_with_the_nearest_name(arguments, message, capsys: pytest.CaptureFixture[str]):
    assert cli.train_main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]):
    assert cli.train_main(["seed=x", "debug=true"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.strip().endswith("error: seed=x: must be a whole number of at least 0")


def test_a_damaged_yaml_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "mine.yaml").write_text("a: [1\nb: 2\n")
    assert cli.train_main(["--config-dir", str(tmp_path), "head=mine"]) == 1
    error = capsys.readouterr().err
    assert "error: a YAML file cannot be read" in error
    assert "mine.yaml" in error


def test_help_lists_every_option_with_its_description(
    tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "mine.yaml").write_text("# My own head.\n_target_: x\n")
    assert cli.train_main(["--help", "--config-dir", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    groups = [path for path in (repository / "conf").iterdir() if path.is_dir() and path.name != "hydra"]
    assert len(groups) >= 12
    for group in groups:
        section = text.split(f"\n  {group.name}: ", 1)[1].split("\n\n", 1)[0]
        names = {line.split()[0] for line in section.splitlines()[1:]}
        assert {path.stem for path in group.glob("[!_]*.yaml")} <= names
    assert "mine" in text
    assert "My own head." in text
    assert text.count("\n  python ") + text.count("\n  pytest") + text.count(" strategy=") >= 5
    assert max(len(line) for line in text.splitlines()) <= 120


def test_help_and_cfg_import_nothing_heavy(repository: Path):
    for arguments in (["--help"], ["--cfg", "job"]):
        code = (
            "import sys; from headstart.commands.cli import train_main; "
            f"sys.argv = ['train.py', *{arguments}]; train_main();"
            "print([m for m in ('torch', 'timm', 'pytorch_lightning', 'wandb', 'sklearn') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository)
        assert done.stdout.strip().endswith("[]"), done.stderr


# The installed command.


def test_headstart_lists_and_dispatches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    fake = ModuleType("headstart.fake")
    fake.main = lambda argv: print("got", argv) or 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "headstart.fake", fake)
    monkeypatch.setattr(cli, "COMMANDS", {"fake": ("headstart.fake", "does it")})
    assert cli.main(["fake", "a", "--b"]) == 3
    assert cli.main([]) == 2
    out = capsys.readouterr().out
    assert "got ['a', '--b']" in out
    assert "does it" in out
    assert cli.main(["tran"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_headstart_train_is_the_same_command(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["train", "seed=x"]) == 1
    assert "error: seed=x: must be" in capsys.readouterr().err
    assert cli.main(["train", "--help"]) == 0
    assert "Usage: headstart train" in capsys.readouterr().out


def test_errors_of_other_commands_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from headstart.errors import RunError

    def fail(argv: list[str]) -> int:
        raise RunError("no such run")

    fake = ModuleType("headstart.fake")
    fake.main = fail  # type: ignore[attr-defined]
    fake.__spec__ = SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "headstart.fake", fake)
    monkeypatch.setattr(cli, "COMMANDS", {"fake": ("headstart.fake", "")})
    assert cli.main(["fake"]) == 1
    assert capsys.readouterr().err == "error: no such run\n"


def test_no_terminal_obeys_a_name_in_an_error(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["predict", ".", "\x1b[31mred"]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert r"\x1b[31mred" in said


@pytest.mark.parametrize("command", ["predict", "rank", "report", "export", "features", "demo"])
def test_the_help_of_a_command_is_all_that_is_said(command: str):
    done = subprocess.run([sys.executable, "-m", "headstart", command, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: headstart {command}")
