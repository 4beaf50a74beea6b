"""``cache.views=auto``: how many augmented views of each training image a frozen backbone looks at.

Four are within half a point of augmenting anew on average over four data sets and two networks, and each costs a pass
over the training images; eight are level with it, and nowhere a point below (experiments/rates).
"""

from collections.abc import Mapping
from typing import Any

from headstart.strategies import Strategy

VIEWS = 4


def decided_views(config: Mapping[str, Any], strategy: Strategy | None) -> int:
    """Views for a plain configuration; 0: augmentation is drawn anew in each epoch, or there is none.

    Only where the whole backbone stays frozen throughout: there an image costs a pass through it a view instead of one
    an epoch, and a view takes a feature's space. What is stored in front of a stage that learns is many times larger,
    and saves less.
    """
    datamodule, stored = config["datamodule"], config["cache"]["mode"] in ("auto", "require")
    if strategy is None or not strategy.only_head_learns or not stored:
        return 0
    if datamodule.get("augment", "none") == "none" or datamodule.get("train_size") is not None:
        return 0
    return 0 if config["batch_transform"]["name"] != "none" else VIEWS
