"""Starting and ending a process without Python's collector of garbage, which finds none there.

With torch, Lightning and timm a process holds a million objects that stay to its end. Looking through them again and
again while they are imported takes a fifth of the imports' time; once more at exit, a second.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

DEAF_S = 10.0
"""How long a process that was told to go may stay where Python hears no signals."""

# Names of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

AGAIN_S = 0.01
"""After how long an interruption that was lost is said again."""

_whole = False
_heard = threading.Event()


def whole_process(command: str) -> NoReturn:
    """Run a command as all that this process is for; it ends with the command's exit code, or 1 after an error.

    Args:
        command: ``module:function``, imported here, so that Ctrl-C meanwhile is one line too.
    """
    global _whole
    _whole = True
    keep_freed_memory()
    sys.unraisablehook = _interrupt_again
    module, _, function = command.partition(":")
    try:
        code = getattr(importlib.import_module(module), function)()
    except SystemExit as asked:  # argparse's and Hydra's way to end
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
    except KeyboardInterrupt:  # During the imports, before the command could listen.
        print("\ninterrupted", file=sys.stderr)
        code = INTERRUPTED
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of tensors that are gone for the next ones, where it can be told to.

    By itself glibc asks the kernel for every large block anew and gives it back at once, and the kernel clears each
    page on first use. On a CPU that can take longer than the layer whose output the block is. Kept, depthwise
    convolutions of 224 pixels run 1.4 to 2.3 times as fast and ResNets 1.05 to 1.15 times, with a tenth more memory
    (experiments/speed).
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return  # somebody chose
    with contextlib.suppress(AttributeError, OSError, TypeError):  # of another C library
        mallopt = ctypes.CDLL(None).mallopt
        # Before version 2.35 no more than 32 MiB are accepted. The second setting alone would fix the first at 128 KiB.
        if mallopt(_M_MMAP_THRESHOLD, 1 << 30) or mallopt(_M_MMAP_THRESHOLD, 32 << 20):
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


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


@contextmanager
def terminable() -> Iterator[None]:
    """Within the block SIGTERM ends every wait as Ctrl-C does; nothing happens outside the main thread.

    Python hears of a signal when its main thread comes back from a library. Where that waits (a rank for the others),
    the process is ended after :data:`DEAF_S`.
    """
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        yield
        return
    _heard.clear()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(signal.SIGTERM, interrupt)
    wakes = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    hook, sys.unraisablehook = sys.unraisablehook, _interrupt_again
    _keep_forks_quiet()
    threading.Thread(target=_end_the_deaf, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.set_wakeup_fd(wakes)
        signal.signal(signal.SIGTERM, handler)
        os.close(writing)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Handles a signal as Ctrl-C; once, so that what is done in its wake is not disturbed."""
    _heard.set()
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def interruption_in(error: BaseException) -> BaseException | None:
    """The Ctrl-C, or the end of a time given, that an error came after; None where it came by itself.

    A library that is interrupted may fail in its own way while it leaves what is half done, such as torch's archives.
    """
    seen: BaseException | None = error
    while isinstance(seen, Exception | SystemExit | GeneratorExit):
        seen = seen.__context__
    return seen


def _interrupt_again(lost: "sys.UnraisableHookArgs") -> None:
    """Python drops what is raised while an object is finalised: a Ctrl-C that came just then is given once more."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been set to be heard once
    threading.Thread(target=_interrupt_outside, daemon=True).start()


def _interrupt_outside() -> None:
    """Interrupt the main thread once it has left :func:`_interrupt_again`, where that would be dropped as well."""
    if main := threading.main_thread().ident:
        time.sleep(AGAIN_S)
        while any(
            frame.f_code is _interrupt_again.__code__
            for frame, _ in traceback.walk_stack(sys._current_frames().get(main))
        ):
            time.sleep(AGAIN_S)
        signal.pthread_kill(main, signal.SIGINT)


@functools.cache
def _keep_forks_quiet() -> None:
    """A worker that is forked from here would otherwise report its own signals to this process."""
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))


def _end_the_deaf(signals: int) -> None:
    with contextlib.closing(os.fdopen(signals, "rb", buffering=0)) as pipe:
        while received := pipe.read(64):
            if signal.SIGTERM in received and not _heard.wait(DEAF_S):
                os.write(2, b"\nterminated\n")
                os._exit(INTERRUPTED)


def leave(code: int) -> NoReturn:
    """End the process: threads end, what was registered for the exit is done, the interpreter is not taken apart."""
    # Python ends itself with these two; they have no public names.
    for finish in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
        try:
            finish()
        except KeyboardInterrupt:  # of somebody who does not want to wait for it
            code = INTERRUPTED
        except BaseException:
            traceback.print_exc()
            code = code or 1
    os._exit(code)
