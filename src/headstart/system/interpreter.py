"""Starting and ending a process without Python's collector of garbage, which finds none there.

With torch, Lightning and timm a process holds a million objects that stay to its end. Looking through them again and
again while they are imported takes a fifth of the imports' time; once more at exit, a second.
"""

import atexit
import gc
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

_whole = False


def whole_process(command: Callable[[], int]) -> NoReturn:
    """Run a command as all that this process is for; it ends with the command's exit code, or 1 after an error."""
    global _whole
    _whole = True
    try:
        code = command()
    except SystemExit:
        raise
    except KeyboardInterrupt:  # During the imports, before the command could listen.
        print("\ninterrupted", file=sys.stderr)
        code = INTERRUPTED
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """For imports: within the block nothing is collected.

    In a :func:`whole_process` what was imported there is never looked through again either. In anybody else's it is,
    since extensions complain at exit of objects that were not collected.
    """
    enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if _whole and len(sys.modules) > modules:
            gc.freeze()
        if enabled:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End the process: threads end, what was registered for the exit is done, the interpreter is not taken apart."""
    # Python ends itself with these two; they have no public names.
    for finish in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        try:
            finish()
        except BaseException:
            traceback.print_exc()
            code = code or 1
    os._exit(code)
