"""The public API, as a notebook would use it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.errors import ConfigError, HeadstartError, RunError

EXAMPLE = re.compile(r"## From Python\n\n```python\n(.*?)```", re.DOTALL)


def test_the_readmes_example_runs_and_ends_with_a_prediction(
    repository: Path, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    code = EXAMPLE.search((repository / "README.md").read_text(encoding="utf-8"))
    assert code
    lines = [line for line in code[1].splitlines() if line]
    assert len(lines) <= 5
    assert ".predict(" in lines[-1]
    really = headstart.train
    monkeypatch.setattr(headstart, "train", lambda *given: really(*given, *tiny, "trainer.max_epochs=1"))
    monkeypatch.chdir(tmp_path)
    exec(code[1], {})
    accuracy, label = capsys.readouterr().out.splitlines()[-1].split()
    assert 0 <= float(accuracy) <= 1
    assert label in set("0123456789")
    assert len(list((tmp_path / "outputs" / "runs").glob("*/result.json"))) == 1


@pytest.fixture
def run(tiny, tmp_path: Path) -> "headstart.Run":
    return headstart.train(*tiny, "trainer.max_epochs=1", f"paths.output_dir={tmp_path / 'outputs'}")


def test_a_trained_run_predicts_what_it_predicted(run, tmp_path: Path, tiny):
    assert run.result.status == "done"
    assert run.metrics == run.result.metrics
    model = headstart.load(tmp_path / "outputs")
    assert model.path == run.path
    assert model.classes == tuple("0123456789")
    from sklearn.datasets import load_digits

    digits = load_digits().images
    image = np.repeat((digits[0] * 15.9375).astype(np.uint8)[..., None], 3, axis=2)
    one, several = model.predict(image, device="cpu"), model.predict([image, image], device="cpu")
    assert [found.label for found in several] == [one.label, one.label]
    assert several[1].probabilities == pytest.approx(one.probabilities, abs=1e-5)
    features = model.features(image, device="cpu")
    assert features.shape == (512,)
    with torch.no_grad():
        tensor = model.transform(Image.fromarray(image))[None]
        outputs = model.network(tensor)
        pooled = model.network.features(tensor).mean(dim=(2, 3))
    assert torch.allclose(features, pooled[0], atol=1e-5)
    assert one.probabilities == pytest.approx(outputs.softmax(1)[0].tolist(), abs=1e-5)
    assert model.features([image], device="cpu").shape == (1, 512)
    again = headstart.train(*tiny, "trainer.max_epochs=1", f"paths.output_dir={tmp_path / 'outputs'}")
    assert again.path == run.path
    assert again.metrics == run.metrics
    assert max(len(repr(shown)) for shown in (run, model)) < len(str(run.path)) + 150


def test_a_sweep_gives_a_study(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    chosen = (*tiny, "trainer.max_epochs=1", f"paths.output_dir={tmp_path}", "name=study")
    study = headstart.sweep(*chosen, "head=ncm,ridge", "hydra.launcher.n_jobs=1", "hydra.sweeper.report=false")
    assert study.path == tmp_path / "study"
    assert [run.result.config["head"] for run in study.runs] == ["ncm", "ridge"]
    rows = study.rows()
    assert [row["head"] for row in rows] == ["ncm", "ridge"]
    assert all(0 <= row["test/acc"] <= 1 and Path(row["path"]).is_dir() for row in rows)
    report = study.report()
    assert report.page.parent == study.path
    assert len(repr(report)) < 1000
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HeadstartError, match="needs pandas"):
        study.to_frame()


def test_a_plan_says_what_would_learn_and_trains_nothing(tiny, tmp_path: Path, capsys):
    choices = (*tiny, "datamodule.augment=light", "trainer.max_epochs=20")
    plan = headstart.plan(*choices, f"paths.output_dir={tmp_path / 'outputs'}")
    assert repr(plan).startswith("Plan(key=")
    assert len(repr(plan)) < 200
    (phase,) = plan.rates.phases
    assert all(name.startswith("head.") for name in phase.learning)
    plan.show()
    said = " ".join(capsys.readouterr().out.split())
    assert "nothing is trained" in said
    assert "4 stored views of each training image take turns, which is 320 passes" in said
    assert "instead of 1,600" in said
    assert not (tmp_path / "outputs").exists()


def test_choices_are_composed_into_plain_containers_and_mistakes_are_named(tmp_path: Path):
    config = headstart.compose("strategy=full", "seed=7")
    assert type(config) is dict
    assert config["strategy"]["_target_"] == "headstart.strategies.Full"
    assert config["datamodule"]["seed"] == 7
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1"):
        headstart.train("optimizer.lr=-1", "backbone.weights=bundled")
    for call in (headstart.train, headstart.plan, headstart.compose, headstart.sweep):
        with pytest.raises(ConfigError, match=r"did you mean strategy\.backbone_lr_mult"):
            call("strategy=full", "strategy.backbone_lr_mul=3")
        with pytest.raises(ConfigError, match="did you mean freeze") as caught:
            call("strategy=freze")
        assert caught.value.__suppress_context__
        with pytest.raises(ConfigError, match=r"\['seed=1'\] is no text; give each choice as a text of its own"):
            call(["seed=1"])
    with pytest.raises(RunError, match="no finished run"):
        headstart.load(tmp_path)
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "mine.yaml").write_text("# Mine.\n_target_: headstart.heads.Linear\ndropout: 0.25\n")
    assert headstart.compose("head=mine", config_dir=tmp_path)["head"]["dropout"] == 0.25
