"""``headstart predict`` killed again and again ends with the file that it would have written at once."""

import subprocess
import sys
import time
from pathlib import Path

#: Predicts so many images at most, with a model that needs no torch; marks what is done after every batch of four.
PREDICT = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from headstart.execution.predict import Prediction, Unreadable
from headstart.inference import part
from headstart.inference.inputs import find_images
from headstart.inference.predict import predict_to_file

part.SECONDS = 0

class Model:
    task, classes = SimpleNamespace(name="multiclass", one_class=True), ("even", "odd")

    def stream(self, images, *, batch_size, device):
        for place, path in enumerate(images):
            if place == int(sys.argv[3]):
                time.sleep(600)
            time.sleep(0.01 if "killed" in sys.argv[2] else 0)
            number = int(Path(path).stem)
            if number % 7 == 0:
                yield Unreadable(path, path)
            else:
                yield Prediction(path, self.classes[number % 2], (1 - number % 2, number % 2))

images = find_images([sys.argv[1]])
tally = predict_to_file(Model(), images, Path(sys.argv[2]), about={}, batch_size=4, device="cpu")
print(tally.images, tally.unreadable, tally.resumed, dict(sorted(tally.labels.items())))
"""


def test_killed_predictions_are_complete_in_the_end_and_without_duplicates(tmp_path: Path):
    photos = tmp_path / "photos"
    for folder in ("a", "b"):
        (photos / folder).mkdir(parents=True)
    for number in range(150):
        (photos / "ab"[number % 2] / f"{number:03d}.png").write_text(str(number))

    def command(name: str, at_most: int) -> list[str]:
        return [sys.executable, "-c", PREDICT, str(photos), str(tmp_path / name), str(at_most)]

    whole = subprocess.run(command("whole.csv", 150), capture_output=True, text=True, check=True)
    for _ in range(4):
        process = subprocess.Popen(command("killed.csv", 30), stderr=subprocess.DEVNULL)
        journal = tmp_path / "killed.csv.part.journal"
        before = journal.stat().st_size if journal.exists() else 0
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.stat().st_size > before + 400):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert not (tmp_path / "killed.csv").exists()
    last = subprocess.run(command("killed.csv", 150), capture_output=True, text=True, check=True)
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    done, unreadable, resumed, labels = last.stdout.split(maxsplit=3)
    assert int(resumed) >= 4
    assert [done, unreadable, "0", labels] == whole.stdout.split(maxsplit=3)
    assert int(done) == len((tmp_path / "whole.csv").read_text().splitlines()) - 1 == 128
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.csv", "photos", "whole.csv"]
