"""How many stored augmented views of an image are as good as augmenting anew in each epoch, for a frozen backbone?

    python experiments/rates/views.py DATA OUT     DATA holds hymenoptera/, clothing/ and cifar10_small/
    python experiments/rates/views.py OUT          the table of what OUT/views.csv holds

Rows that OUT/views.csv holds already are not made again. Accuracy is that of validation, at the best epoch.
"""

import itertools
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import study

from headstart.system.atomic import write_rows

MODES = {
    "none": ("datamodule.augment=none",),
    "1": ("datamodule.augment=light", "cache.views=1"),
    "4": ("datamodule.augment=light", "cache.views=4"),
    "8": ("datamodule.augment=light", "cache.views=8"),
    "anew": ("datamodule.augment=light", "cache.views=0"),
}
SEEDS = (1, 2, 3)
KEYS = ("network", "data", "views", "seed")


def run(folder: Path, out: Path) -> None:
    """Train what OUT/views.csv lacks."""
    import headstart

    table = out / "views.csv"
    rows = study.read(table)
    done = {tuple(row[key] for key in KEYS) for row in rows}
    quiet = ["datamodule.num_workers=0", "callbacks.plots=false", "strategy=freeze"]
    places = [f"paths.output_dir={out / 'outputs'}", f"paths.cache_dir={out / 'cache'}"]
    for seed, (network, weights), (data, choices), (views, mode) in itertools.product(
        SEEDS, study.NETWORKS.items(), study.data_sets(folder).items(), MODES.items()
    ):
        if (network, data, views, str(seed)) in done:
            continue
        named = [f"backbone={network}", f"backbone.weights={weights}", f"seed={seed}"]
        made = headstart.train(*named, *choices, *mode, *quiet, *places)
        row = dict(zip(KEYS, (network, data, views, str(seed)), strict=True))
        rows.append({**row, "val/acc": f"{made.metrics['val/acc']:.4f}"})
        write_rows(table, rows)


def summarise(rows: list[dict[str, str]]) -> None:
    """Mean validation accuracy over the seeds that all modes have."""
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[row["network"], row["data"]][row["views"]][row["seed"]] = float(row["val/acc"])
    print("| network | data | none | 1 view | 4 views | 8 views | anew | 4 views less anew | seeds |")
    print("|---|---|---|---|---|---|---|---|---|")
    gaps: dict[str, list[float]] = defaultdict(list)
    for (network, data), modes in found.items():
        seeds = set.intersection(*(set(modes[mode]) for mode in MODES))
        if not seeds:
            continue
        means = {mode: mean(modes[mode][seed] for seed in seeds) for mode in MODES}
        gaps[network].append(means["4"] - means["anew"])
        numbers = " | ".join(f"{100 * means[mode]:.1f}" for mode in MODES)
        print(f"| {network} | {data} | {numbers} | {100 * gaps[network][-1]:+.1f} | {len(seeds)} |")
    for network, values in gaps.items():
        print(f"{network}: 4 views less anew, mean over the data sets: {100 * mean(values):+.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        run(Path(sys.argv[1]), Path(sys.argv[2]))
    summarise(study.read(Path(sys.argv[-1]) / "views.csv"))
