"""How well do the scores of `headstart rank` predict accuracy, and what is lost by trusting the best of them?

    python experiments/ranking/study.py DATA OUT     DATA holds hymenoptera/, clothing/ and cifar10_small/
    python experiments/ranking/study.py OUT          only the summary, of what is there

OUT/networks.csv has the scores of each network on each data set, OUT/trainings.csv each training, OUT/scores.csv the
summary. Rows are written as they come, and those that are there are not made again.
"""

import csv
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import weightedtau

import headstart
from headstart.system.atomic import write_rows
from headstart.transferability.scores import MEANINGS

# Small images and few of them: the study is to run on two cores within an hour.
SIZE, EPOCHS = 64, 4
TRAINED = ("resnet18", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
RANDOM = ("resnet18:none", "efficientnet_lite0:none")
_PROBED = ("strategy=freeze", "head=logreg", "datamodule.augment=none")
_GENTLY = ("strategy=full", "head_init=probe", "batchnorm=eval", f"trainer.max_epochs={EPOCHS}")
# Of random weights there is neither a classifier to start from nor statistics to keep.
_ANEW = ("strategy=full", f"trainer.max_epochs={EPOCHS}")
# In this order over all data sets, so that a study that is ended early has seen each alike.
ROUNDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("frozen", (*TRAINED, *RANDOM), _PROBED),
    ("full 3e-4", TRAINED[:2], (*_GENTLY, "optimizer.lr=3e-4")),
    ("full 3e-4", TRAINED[2:], (*_GENTLY, "optimizer.lr=3e-4")),
    ("full 1e-3", TRAINED[:2], (*_GENTLY, "optimizer.lr=1e-3")),
    ("full 1e-3", RANDOM, (*_ANEW, "optimizer.lr=1e-3")),
)
# Images a class: of two classes more than of ten.
SHOTS = {2: {"train": 80, "val": 40, "test": 80}, 10: {"train": 40, "val": 30, "test": 100}}
SPLITS = {
    "hymenoptera": {"train": "train", "val": "train", "test": "val"},
    "clothing": {"train": "train", "val": "validation", "test": "test"},
    "cifar10_small": {"train": "train", "val": "train", "test": "test"},
}
_RESAMPLES = 2000


def data_sets(data: Path, out: Path) -> dict[str, list[str]]:
    """Choices of each data set, which `headstart advise` is given too; writes the tables of the folders."""
    made = {"digits": ["datamodule=digits", "datamodule.shots=40", "datamodule.val_fraction=0.2"]}
    for name in SPLITS:
        write_rows(out / f"{name}.csv", chosen_images(data / name, SPLITS[name]))
        made[name] = ["datamodule=csv", f"datamodule.manifest={out / name}.csv", f"datamodule.root={data / name}"]
    return {name: [*choices, f"datamodule.image_size={SIZE}", "trainer=cpu"] for name, choices in made.items()}


def chosen_images(root: Path, folders: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """As many images of each class as SHOTS says, by a digest of their names; a row each."""
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    shots = SHOTS[2 if len(classes) == 2 else 10]
    for name in classes:
        taken = dict.fromkeys(folders.values(), 0)
        for split, folder in folders.items():
            paths = sorted(
                (root / folder / name).iterdir(), key=lambda path: hashlib.sha256(path.name.encode()).hexdigest()
            )
            for path in paths[taken[folder] : taken[folder] + shots[split]]:
                yield {"path": path.relative_to(root).as_posix(), "target": name, "split": split}
            taken[folder] += shots[split]


def main(data: Path, out: Path) -> None:
    """Make what is missing, the cheap rounds first."""
    sets = data_sets(data, out)
    for recipe, networks, overrides in ROUNDS:
        for name, choices in sets.items():
            quiet = ("callbacks.progress=none", "callbacks.plots=false", f"name=ranking-{name}")
            chosen = [*choices, *quiet, f"paths.output_dir={out / 'runs'}", f"paths.cache_dir={out / 'cache'}"]
            for network in networks:
                if recipe == "frozen":
                    score(out, name, network, chosen)
                train(out, name, network, recipe, [*chosen, *overrides])
    summarise(out)


def score(out: Path, data: str, network: str, chosen: Sequence[str]) -> None:
    """A row of networks.csv."""
    rows = read(out / "networks.csv")
    if any((row["data"], row["backbone"]) == (data, network) for row in rows):
        return
    [found] = headstart.rank(*chosen, backbones=[network]).rows()
    kept = {key: value for key, value in found.items() if key not in ("backbone", "chance_of_best", "absent")}
    write_rows(out / "networks.csv", [*rows, {"data": data, "backbone": network, **kept}])


def train(out: Path, data: str, network: str, recipe: str, chosen: Sequence[str]) -> None:
    """A row of trainings.csv."""
    rows = read(out / "trainings.csv")
    if any((row["data"], row["backbone"], row["recipe"]) == (data, network, recipe) for row in rows):
        return
    started = time.perf_counter()
    run = headstart.train(*chosen, *network_choice(network))
    row = {
        "data": data,
        "backbone": network,
        "recipe": recipe,
        "val": run.metrics["val/acc"],
        "test": run.metrics["test/acc"],
        "test_images": run.result.data["sizes"]["test"],
        "seconds": time.perf_counter() - started,
    }
    write_rows(out / "trainings.csv", [*rows, row])
    print(row, flush=True)


def network_choice(network: str) -> list[str]:
    """A network as a training names it."""
    name, _, weights = network.partition(":")
    return [f"backbone={name}", *([f"backbone.weights={weights}"] if weights else [])]


def read(path: Path) -> list[dict[str, str]]:
    """The rows so far."""
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []


def accuracies(out: Path) -> dict[str, dict[tuple[str, str], float]]:
    """Test accuracy by data set and network: on frozen features, and of the fine-tuning that was best on validation."""
    probed, tuned = {}, {}
    for row in sorted(read(out / "trainings.csv"), key=lambda row: float(row["val"])):
        target = probed if row["recipe"] == "frozen" else tuned
        target[row["data"], row["backbone"]] = float(row["test"])
    return {"probed": probed, "tuned": tuned}


def summarise(out: Path) -> None:
    """Weighted Kendall's tau of each score with each accuracy, and the regret of its first choice, into scores.csv."""
    rows, found = read(out / "networks.csv"), []
    for target, values in accuracies(out).items():
        for among, networks in (("all", (*TRAINED, *RANDOM)), ("trained", TRAINED)):
            tables = {}
            for score_name in MEANINGS:
                tables[score_name] = [
                    {
                        row["backbone"]: (float(row[score_name]), values[row["data"], row["backbone"]])
                        for row in rows
                        if row["data"] == data
                        and row["backbone"] in networks
                        and (row["data"], row["backbone"]) in values
                        and row[score_name] not in ("", "nan")
                    }
                    for data in dict.fromkeys(row["data"] for row in rows)
                ]
            found += [
                {"accuracy": target, "among": among, "score": score_name, **measured}
                for score_name, pairs in tables.items()
                if (measured := of_score([table for table in pairs if len(table) > 2]))
            ]
    write_rows(out / "scores.csv", found)
    for row in found:
        tau = f"tau {row['tau']:+.2f} ({row['tau_low']:+.2f} to {row['tau_high']:+.2f})"
        lost = " ".join(f"{100 * row[key]:.1f}" for key in ("regret", "regret_worst", "regret_by_lot"))
        print(f"{row['accuracy']:<7}{row['among']:<8}{row['score']:<13}{tau}  points lost, worst, by lot: {lost}")


def of_score(tables: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Tau with its interval, and regrets; empty of no data set with three networks.

    Networks and data sets are drawn anew for the interval: with so few of both it is wide, and that is the truth.

    Args:
        tables: for each data set, of each network the score and the accuracy.
    """
    if not tables:
        return {}
    regrets = [regret(table) for table in tables]
    names, rng = sorted({name for table in tables for name in table}), np.random.default_rng(0)
    drawn = []
    for _ in range(_RESAMPLES):
        networks = [names[place] for place in rng.integers(len(names), size=len(names))]
        sets = [tables[place] for place in rng.integers(len(tables), size=len(tables))]
        taus = [tau([table[name] for name in networks if name in table]) for table in sets]
        known = [value for value in taus if np.isfinite(value)]
        if known:
            drawn.append(np.mean(known))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "data_sets": len(tables),
        "networks": len(names),
        "tau": float(np.mean([tau(list(table.values())) for table in tables])),
        "tau_low": float(low),
        "tau_high": float(high),
        "regret": float(np.mean(regrets)),
        "regret_worst": max(regrets),
        "regret_by_lot": float(
            np.mean([max(a for _, a in t.values()) - np.mean([a for _, a in t.values()]) for t in tables])
        ),
    }


def tau(pairs: Sequence[tuple[float, float]]) -> float:
    """Weighted Kendall's tau of scores and accuracies; NaN where fewer than three differ."""
    if len(set(pairs)) < 3 or any(len({pair[place] for pair in pairs}) < 2 for place in (0, 1)):
        return float("nan")
    scores, reached = np.array(pairs).T
    return float(weightedtau(scores, reached).statistic)


def regret(table: Mapping[str, tuple[float, float]]) -> float:
    """How much less accurate than the best network the one with the highest score is."""
    return max(reached for _, reached in table.values()) - max(table.values(), key=lambda pair: pair[0])[1]


if __name__ == "__main__":
    if len(sys.argv) == 2:
        summarise(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
