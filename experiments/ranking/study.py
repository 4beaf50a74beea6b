"""How well do the scores of `headstart rank` predict accuracy? One row a network and data set, then Kendall's tau.

    python experiments/ranking/study.py DATA OUT     DATA holds hymenoptera/, clothing/ and cifar10_small/

Rows that OUT/networks.csv holds already are not made again. `summarise` alone: give OUT only.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy.stats import weightedtau

import headstart
from headstart.ranking.scores import MEANINGS
from headstart.system.atomic import write_rows

# Small images and few of them: the study is to run on a laptop within an hour.
SIZE, SHOTS = 96, 20
NETWORKS = (
    "resnet18",
    "resnet18:none",
    "efficientnet_lite0",
    "efficientnet_lite0:none",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
# Fine-tuning takes minutes even so; of these networks only, for a few epochs.
TUNED = ("resnet18", "resnet18:none", "efficientnet_lite0")
TUNING = ("strategy=full", "trainer.max_epochs=4", "optimizer.lr=3e-4")
TARGETS = ("probed", "tuned")


def data_sets(folder: Path) -> dict[str, list[str]]:
    """Choices of each data set."""
    folders = {"hymenoptera": SHOTS * 3, "clothing": SHOTS, "cifar10_small": SHOTS}
    made = {"digits": ["datamodule=digits", f"datamodule.shots={SHOTS}"]}
    for name, shots in folders.items():
        made[name] = ["datamodule=folder", f"datamodule.root={folder / name}", f"datamodule.shots={shots}"]
    made["hymenoptera"].append("datamodule.test_fraction=0.2")
    return {name: [*choices, f"datamodule.image_size={SIZE}", "trainer=cpu"] for name, choices in made.items()}


def main(data: Path, out: Path) -> None:
    """Make what is missing, one network at a time."""
    rows = read(out)
    for name, choices in data_sets(data).items():
        for network in NETWORKS:
            if any((row["data"], row["backbone"]) == (name, network) for row in rows):
                continue
            quiet = ("callbacks.progress=none", "callbacks.plots=false")
            chosen = [*choices, *quiet, f"name=ranking-{name}", f"paths.output_dir={out / 'runs'}"]
            [scored] = headstart.rank(*chosen, backbones=[network]).rows()
            probed = headstart.train(
                *chosen, *network_choice(network), "strategy=freeze", "head=logreg", "datamodule.augment=none"
            )
            row = {"data": name, "backbone": network, "probed": probed.metrics["test/acc"]}
            if network in TUNED:
                row["tuned"] = headstart.train(*chosen, *network_choice(network), *TUNING).metrics["test/acc"]
            rows.append(
                {
                    **row,
                    **{score: scored[score] for score in MEANINGS},
                    "images_per_second": scored["images_per_second"],
                }
            )
            write_rows(out / "networks.csv", rows)
            print(name, network, row, flush=True)
    summarise(out)


def network_choice(network: str) -> list[str]:
    """A network as a training names it."""
    name, _, weights = network.partition(":")
    return [f"backbone={name}", *([f"backbone.weights={weights}"] if weights else [])]


def read(out: Path) -> list[dict]:
    """The rows so far."""
    path = out / "networks.csv"
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def summarise(out: Path) -> None:
    """Weighted Kendall's tau of each score with each accuracy within a data set, and the regret of its first choice."""
    rows, found = read(out), []
    for score in MEANINGS:
        for target in TARGETS:
            taus, regrets, networks = [], [], 0
            for data in dict.fromkeys(row["data"] for row in rows):
                pairs = [
                    (float(row[score]), float(row[target]))
                    for row in rows
                    if row["data"] == data and row[score] not in ("", "nan") and row.get(target)
                ]
                if len(pairs) < 3:
                    continue
                scores, accuracies = np.array(pairs).T
                taus.append(float(weightedtau(scores, accuracies).statistic))
                regrets.append(float(accuracies.max() - accuracies[scores.argmax()]))
                networks += len(pairs)
            if taus:
                found.append(
                    {
                        "score": score,
                        "accuracy": target,
                        "data_sets": len(taus),
                        "networks": networks,
                        "tau": np.mean(taus),
                        "tau_lowest": min(taus),
                        "regret": np.mean(regrets),
                        "regret_worst": max(regrets),
                    }
                )
    write_rows(out / "scores.csv", found)
    for row in found:
        tau = f"tau {row['tau']:+.2f} (lowest {row['tau_lowest']:+.2f})"
        regret = f"regret {100 * row['regret']:.1f} points (worst {100 * row['regret_worst']:.1f})"
        print(f"{row['score']:<13}{row['accuracy']:<8}{tau}  {regret}  {row['data_sets']} data sets")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        summarise(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
