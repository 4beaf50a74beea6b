"""Thirty verdicts about nothing: two heads on the same frozen features of photographs, split again and again.

    python experiments/verdict/hymenoptera.py PATH      # PATH holds ants and bees; writes hymenoptera.csv beside this

Images are split thirty times; on each split a linear head is trained from eight seeds and logistic regression is
solved once, and one report's comparison is made of them. What is true is the mean difference over all splits. A row is
a split: what seeds alone say of it, and what seeds and test images say together.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from headstart.study.paired import Paired, paired_difference

SPLITS, SEEDS, TESTED = 30, 8, 153
EPOCHS, BATCH, RATE = 15, 32, 1e-3


def features(root: Path, folder: Path, *, size: int = 96, classes: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Frozen features of every image below ``root``, or of some classes, and its class, by the bundled ResNet-18."""
    import headstart

    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    paths = [path for path in paths if not classes or path.parent.name in classes]
    chosen = [f"datamodule.classes=[{','.join(classes)}]"] if classes else []
    run = headstart.train(
        "backbone=resnet18", "backbone.weights=bundled", "strategy=freeze", "datamodule=folder",
        f"datamodule.root={root}", f"datamodule.image_size={size}", "datamodule.augment=none",
        "datamodule.num_workers=0", "trainer.max_epochs=1", "callbacks.plots=false", "name=features",
        f"paths.output_dir={folder}", *chosen,
    )  # fmt: skip
    found = run.load().features(paths)
    known = sorted({path.parent.name for path in paths})
    return np.asarray(found, dtype=np.float32), np.array([known.index(path.parent.name) for path in paths])


def linear(train: np.ndarray, targets: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """What a linear head says of the test images, trained with AdamW from a seed."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(2, train.shape[1], generator=generator) * 0.01).requires_grad_()
    bias = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.AdamW([weight, bias], lr=RATE)
    inputs, labels = torch.from_numpy(train), torch.from_numpy(targets)
    for _ in range(EPOCHS):
        for places in torch.randperm(len(inputs), generator=generator).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(functional.linear(inputs[places], weight, bias), labels[places]).backward()
            optimizer.step()
    with torch.no_grad():
        return functional.linear(torch.from_numpy(test), weight, bias).argmax(dim=1).numpy()


def verdict(pair: Paired) -> str:
    """As a report words it."""
    return "no difference" if not pair.significant else "better" if pair.mean > 0 else "worse"


def main() -> None:
    """Write the table and say what it comes to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("outputs"), help="where the run that makes the features goes")
    options = parser.parse_args()
    inputs, targets = features(options.root, options.runs)
    pairs = []
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(inputs))
        test, train = order[:TESTED], order[TESTED:]
        centre, scale = inputs[train].mean(axis=0), inputs[train].std(axis=0) + 1e-6
        near, far = (inputs[train] - centre) / scale, (inputs[test] - centre) / scale
        solved = LogisticRegression(C=0.01, max_iter=2000).fit(near, targets[train]).predict(far) == targets[test]
        trained = [linear(near, targets[train], far, seed) == targets[test] for seed in range(SEEDS)]
        grid = np.array(trained, dtype=float) - solved
        alone = paired_difference(grid.mean(axis=1), np.zeros(SEEDS))
        pairs.append((alone, paired_difference(grid.mean(axis=1), np.zeros(SEEDS), images=grid, step=1.0)))
    truth = float(np.mean([pair.mean for pair, _ in pairs]))
    rows = [
        {"split": split, "difference": f"{pair.mean:.4f}"}
        | {f"{name}_{key}": value for name, item in (("seeds", alone), ("images", pair)) for key, value in (
            ("verdict", verdict(item)), ("low", f"{item.low:.4f}" if item.low is not None else ""),
            ("high", f"{item.high:.4f}" if item.high is not None else ""),
            ("holds_truth", item.low is not None and item.high is not None and item.low <= truth <= item.high),
        )}
        for split, (alone, pair) in enumerate(pairs)
    ]  # fmt: skip
    with Path(__file__).with_name("hymenoptera.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    spread = np.std([pair.mean for pair, _ in pairs], ddof=1)
    print(f"true difference {100 * truth:+.2f} points, {100 * spread:.2f} from split to split")
    for name in ("seeds", "images"):
        counts = {
            word: sum(row[f"{name}_verdict"] == word for row in rows) for word in ("better", "worse", "no difference")
        }
        held = np.mean([bool(row[f"{name}_holds_truth"]) for row in rows])
        print(f"{name}: {counts}, interval holds the truth in {100 * held:.0f} %")


if __name__ == "__main__":
    main()
