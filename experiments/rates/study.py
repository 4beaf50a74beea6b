"""At which rate should each strategy train a pretrained backbone? One row a strategy, setting, network and data set.

    python experiments/rates/study.py DATA OUT     DATA holds hymenoptera/, clothing/ and cifar10_small/
    python experiments/rates/study.py OUT          the tables of what OUT/rates.csv holds

Rows that OUT/rates.csv holds already are not made again. Accuracy is that of validation, by which a setting is chosen.
"""

import csv
import itertools
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

from headstart.system.atomic import write_rows

# Small images and few of them: the study is to run on a laptop within two hours.
COMMON = ["trainer.check_val_every_n_epoch=4", "datamodule.num_workers=0", "callbacks.plots=false"]
NETWORKS = {"efficientnet_lite0": "package", "resnet18": "bundled"}
MULTS = (1.0, 0.3, 0.1, 0.03)
# Defaults of the first version where they are others now, and the settings below that are the defaults now.
CHANGED = {
    "freeze": ("strategy.lr_mult=1.0", "optimizer.lr=1e-3"),
    "lp_ft": (
        "strategy.probe_lr_mult=1.0 strategy.finetune_lr_mult=0.1 batchnorm=train",
        "strategy.backbone_lr_mult=1.0 batchnorm=eval",
    ),
    "lora": ("strategy.lr_mult=1.0 strategy.adapter_lr_mult=1.0", "strategy.adapter_lr_mult=0.2"),
    "bitfit": ("strategy.lr_mult=1.0", "optimizer.lr=1e-3"),
    "norm_only": ("strategy.lr_mult=1.0", "optimizer.lr=1e-3"),
    "l2sp": ("strategy.alpha=0.1", "strategy.alpha=0.01"),
    "cotuning": ("strategy.weight=2.3", "strategy.weight=0.5"),
}
# What is varied of each strategy; freeze has a head only. The order is that of what is asked most: a study cut short
# still answers for the first.
SETTINGS: dict[str, list[str]] = {
    "full": [f"strategy.backbone_lr_mult={mult}" for mult in MULTS]
    + [f"strategy.backbone_lr_mult={mult} batchnorm={mode}" for mode in ("eval", "affine") for mult in (1.0, 0.1)],
    "freeze": ["optimizer.lr=1e-3", "optimizer.lr=1e-2"],
    "partial": [f"strategy.backbone_lr_mult={mult}" for mult in (1.0, 0.1)],
    "lp_ft": [f"strategy.backbone_lr_mult={mult} batchnorm=train" for mult in (1.0, 0.1)]
    + ["strategy.backbone_lr_mult=1.0 batchnorm=eval"],
    "lora": [f"strategy.adapter_lr_mult={mult}" for mult in (0.2, 0.05)],
    "bitfit": ["optimizer.lr=1e-3", "optimizer.lr=1e-2"],
    "norm_only": ["optimizer.lr=1e-3", "optimizer.lr=1e-2"],
    "layerwise": [f"strategy.decay={decay}" for decay in (0.75, 0.5)],
    "gradual": [f"strategy.lr_decay={decay}" for decay in (1.0, 0.385)],
    "l2sp": [
        "strategy.alpha=0.1",
        "strategy.alpha=0.01",
        "strategy.alpha=1.0",
        "strategy.alpha=0.1 strategy.backbone_lr_mult=0.1",
    ],
    "delta": ["strategy.alpha=0.01", "strategy.alpha=0.1", "strategy.alpha=0.64", "strategy.backbone_lr_mult=0.1"],
    "bss": ["strategy.eta=1e-3", "strategy.eta=1e-4", "strategy.eta=1e-2"],
    "cotuning": ["strategy.weight=2.3", "strategy.weight=0.5", "strategy.weight=5.0"],
}
# Few steps ask for larger rates than many: what is asked most is answered for both.
EPOCHS = {"full": (24, 8), "lp_ft": (24, 8)}
KEYS = ("strategy", "epochs", "setting", "network", "data")


def data_sets(folder: Path) -> dict[str, list[str]]:
    """Choices of each data set."""
    sizes = {"hymenoptera": (96, 60), "clothing": (96, 12), "cifar10_small": (64, 20)}
    made = {"digits": ["datamodule=digits", "datamodule.image_size=64", "datamodule.shots=15"]}
    for name, (side, shots) in sizes.items():
        root = f"datamodule.root={folder / name}"
        made[name] = ["datamodule=folder", root, f"datamodule.image_size={side}", f"datamodule.shots={shots}"]
    return made


def run(folder: Path, out: Path) -> None:
    """Train what OUT/rates.csv lacks."""
    import headstart
    from headstart.errors import HeadstartError

    table = out / "rates.csv"
    rows = read(table)
    places = [f"paths.output_dir={out / 'outputs'}", f"paths.cache_dir={out / 'cache'}"]
    first = [(strategy, (8,), [settings[0]]) for strategy, settings in CHANGED.items()]
    rest = [(strategy, EPOCHS.get(strategy, (8,)), settings) for strategy, settings in SETTINGS.items()]
    for strategy, lengths, settings in [*first, *rest]:
        cells = itertools.product(lengths, data_sets(folder).items(), NETWORKS.items(), settings)
        for epochs, (data, choices), (network, weights), setting in cells:
            row = dict(zip(KEYS, (strategy, str(epochs), setting, network, data), strict=True))
            if any(all(done[key] == row[key] for key in KEYS) for done in rows):
                continue
            named = [f"backbone={network}", f"backbone.weights={weights}", f"strategy={strategy}"]
            try:
                done = headstart.train(
                    *named, *setting.split(), *choices, f"trainer.max_epochs={epochs}", *COMMON, *places
                )
                accuracy = f"{done.metrics['val/acc']:.4f}"
            except HeadstartError as error:
                accuracy = "nan"
                print(error, file=sys.stderr)
            rows.append({**row, "val/acc": accuracy})
            write_rows(table, rows)


def read(table: Path) -> list[dict[str, str]]:
    """Rows made so far."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def summarise(rows: list[dict[str, str]]) -> None:
    """Mean validation accuracy of each setting over the data sets, and how far it is at worst from the best tried."""
    groups: dict[tuple[str, str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        groups[row["strategy"], row["epochs"], row["network"]][row["setting"]][row["data"]] = float(row["val/acc"])
    print("| strategy | epochs | network | setting | mean val/acc | below the best, mean | at worst | data sets |")
    print("|---|---|---|---|---|---|---|---|")
    for (strategy, epochs, network), found in groups.items():
        most = max(map(len, found.values()))
        settings = {setting: scores for setting, scores in found.items() if len(scores) == most}
        common = set.intersection(*(set(scores) for scores in settings.values()))
        best = {data: max(scores[data] for scores in settings.values()) for data in common}
        for setting, scores in settings.items():
            gaps = [best[data] - scores[data] for data in common]
            if gaps:
                means = (mean(scores[data] for data in common), mean(gaps), max(gaps))
                numbers = " | ".join(f"{100 * value:.1f}" for value in means)
                print(f"| {strategy} | {epochs} | {network} | `{setting}` | {numbers} | {len(common)} |")
    print("\n| strategy, 8 epochs | network | first version | now | difference | at worst |")
    print("|---|---|---|---|---|---|")
    for strategy, (first, now) in CHANGED.items():
        for network in NETWORKS:
            before, after = (groups[strategy, "8", network].get(setting, {}) for setting in (first, now))
            gains = [after[data] - before[data] for data in before.keys() & after.keys()]
            if gains:
                means = [mean(scores[data] for data in before.keys() & after.keys()) for scores in (before, after)]
                numbers = " | ".join(f"{100 * value:.1f}" for value in (*means, mean(gains), min(gains)))
                print(f"| {strategy} | {network} | {numbers} |")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(Path(sys.argv[1]), Path(sys.argv[2]))
    summarise(read(Path(sys.argv[-1]) / "rates.csv"))
