"""The one place where errors of other libraries, and of the system, become a line of this package's."""

import errno
import os

# What a person can do about an error of the system.
_FIXES = {
    errno.ENOSPC: "free some space, or give another folder",
    errno.EDQUOT: "free some space, or give another folder",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give one that you may use, or change its permissions",
    errno.EPERM: "give one that you may use, or change its permissions",
    errno.ENOENT: "nothing is there, and nothing can be made there; give another, or see that it stays",
    errno.ENOTDIR: "a part of it is a file; give a folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.EEXIST: "there is something of that name; give another",
    errno.ENAMETOOLONG: "shorten it",
    errno.ELOOP: "it is a link to itself; give what it should lead to",
    errno.EMFILE: "raise the limit (ulimit -n), or lower datamodule.num_workers",
}
# Packages and classes of errors that say what was wrong with a choice, and what stands before their words.
_LIBRARIES = {
    ("pytorch_lightning", "MisconfigurationException"): "Lightning cannot train so",
    ("lightning_fabric", "MisconfigurationException"): "Lightning cannot train so",
    ("wandb", "UsageError"): "Weights & Biases cannot start (logger.wandb.mode=offline needs no account)",
    ("wandb", "CommError"): "Weights & Biases cannot be reached (logger.wandb.mode=offline needs no network)",
    ("wandb", "AuthenticationError"): "Weights & Biases cannot start (logger.wandb.mode=offline needs no account)",
}


def explain_library(error: BaseException) -> str | None:
    """One line for an error of the system or of a known library that a person can fix, else None."""
    if isinstance(error, OSError) and error.errno in _FIXES:
        place = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else "a file"
        return f"{_short(str(place))}: {str(error.strerror).lower()}; {_FIXES[error.errno]}"
    for kind in type(error).__mro__:
        words = _LIBRARIES.get((kind.__module__.partition(".")[0], kind.__name__))
        if words is not None:
            return f"{words}: {' '.join(str(error).split())}"
    return None


def _short(text: str, limit: int = 160) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
