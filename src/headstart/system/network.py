"""Downloads that fail fast: without a network the user is told within seconds what to do instead."""

import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from headstart.errors import DataError

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 3.0
_STALL_TIMEOUT_S = 60.0


@contextmanager
def downloading(name: str, url: str, folder: Path, *, megabytes: int) -> Iterator[None]:
    """Within this block a data set is fetched into ``folder``, by one process at a time.

    Raises:
        DataError: the server cannot be reached (decided within 3 s), the download breaks off, or the folder cannot
            be written.
    """
    if not reachable(url):
        raise DataError(
            f"datamodule={name} is not in {folder} and cannot be downloaded: its server is not reachable from here. "
            f"Run once where there is a network and copy that folder (paths.data_dir=PATH names another), or use data "
            "that need no download: datamodule=digits, or datamodule=folder datamodule.root=PATH."
        )
    logger.info("downloading %s (about %d MB) to %s", name, megabytes, folder)
    before = socket.getdefaulttimeout()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder / f".{name}.lock"):
            socket.setdefaulttimeout(_STALL_TIMEOUT_S)
            yield
    except (OSError, RuntimeError, EOFError) as error:
        raise DataError(
            f"the download of datamodule={name} to {folder} failed: {error}. Check the space and rights there, then "
            "run again; paths.data_dir=PATH names another folder."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


def reachable(url: str, *, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether the server of ``url``, or the proxy that leads there, accepts a connection within ``timeout_s``.

    The look-up of the name has no time limit of its own, hence the thread.
    """
    host, port = _endpoint(url)
    answered = threading.Event()

    def probe() -> None:
        try:
            socket.create_connection((host, port), timeout=timeout_s).close()
            answered.set()
        except OSError:
            pass

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answered.is_set()


def _endpoint(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    default = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", parts.port or default


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    if os.name != "posix":
        yield
        return
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
