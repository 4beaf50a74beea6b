"""Files that come from anywhere, and may be none."""

import stat as stat_kinds
from pathlib import Path


def check_regular(path: str | Path) -> None:
    """Refuse what is no file: to read a pipe, a socket or a device may never end.

    Raises:
        OSError: it is none, or cannot be looked at.
    """
    mode = Path(path).stat().st_mode
    if not stat_kinds.S_ISREG(mode):
        kinds = {stat_kinds.S_ISDIR: "a folder", stat_kinds.S_ISFIFO: "a pipe", stat_kinds.S_ISSOCK: "a socket"}
        found = next((words for test, words in kinds.items() if test(mode)), "a device")
        raise OSError(f"it is {found}, not a file")
