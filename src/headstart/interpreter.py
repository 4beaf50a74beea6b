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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """For imports: within the block nothing is collected, and what was imported there is never looked through again."""
    enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        if enabled:
            gc.enable()


def leave(code: int) -> NoReturn:
    """End the process: threads end, what was registered for the exit is done, the interpreter is not taken apart."""
    for finish in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        try:
            finish()
        except BaseException:
            traceback.print_exc()
            code = code or 1
    os._exit(code)
