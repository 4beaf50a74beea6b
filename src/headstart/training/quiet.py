"""Messages of Lightning that say nothing to a user of Headstart, silenced by name; everything else is shown."""

import logging
import warnings

_MESSAGES = (
    # Frozen modules are in evaluation mode on purpose.
    r"Found \d+ module\(s\) in eval mode",
    # Lightning's own use of torch.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # A resumed run goes on in its own folder.
    r"Checkpoint directory .* exists and is not empty",
    # The number of workers is chosen from the machine and the data.
    r".* does not have many workers which may be a bottleneck",
    # Small data sets are the usual case.
    r"The number of training batches .* is smaller than the logging interval",
    # On a cluster's machines `srun` is there, whether this run wants it or not.
    r"The `srun` command is available on your system but is not used",
    # The trainer is used again for scoring after training.
    r".*`trainer\.validate\(.*",
)


def quiet_lightning() -> None:
    """Filter the messages; warnings that are errors (in tests) stay out of these too."""
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
