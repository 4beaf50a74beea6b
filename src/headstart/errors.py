"""The exception types of Headstart.

Every message says what was given, what is allowed and how to fix it, in one or two sentences: the command
line prints it as it is, without a traceback.
"""


class HeadstartError(Exception):
    """Base of every error that the user can cause and fix."""


class ConfigError(HeadstartError):
    """A choice is unknown, of the wrong type, out of range or impossible together with another."""


class DataError(HeadstartError):
    """The images or their labels cannot be used as asked."""


class WeightsError(HeadstartError):
    """Pretrained weights are missing, unreachable, damaged or of another network."""


class AuditError(HeadstartError):
    """A frozen parameter moved, or a trainable one never received a gradient."""


class RunError(HeadstartError):
    """A run directory cannot be used, or a run it depends on is missing or unfinished."""


class CacheError(HeadstartError):
    """A cache entry is required and cannot be built, opened or trusted."""


class DivergedError(HeadstartError):
    """The training loss became NaN or infinite."""
