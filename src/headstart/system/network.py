"""Downloads that fail fast: without a network the user is told within seconds what to do instead."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import DataError
from headstart.system.locks import holding

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
        with holding(folder / f".{name}.lock"):
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
    """Whether the server of ``url`` answers, through the proxy where one leads there; decided within ``timeout_s``.

    Looking up a name has no time limit of its own, so the whole attempt runs beside this thread.
    """
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_answers(url, timeout_s)), daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(answers and answers[0])


def _answers(url: str, timeout_s: float) -> bool:
    import ssl
    from http.client import HTTPException
    from urllib.parse import urlsplit
    from urllib.request import Request, getproxies, proxy_bypass, urlopen

    parts = urlsplit(url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    try:
        if parts.scheme in getproxies() and not proxy_bypass(host):
            # A proxy always accepts the connection; only a request shows whether it lets this one through.
            with urlopen(Request(url, method="HEAD"), timeout=timeout_s) as response:
                return bool(response.status < 400)
        with socket.create_connection((host, parts.port or (443 if secure else 80)), timeout=timeout_s) as connection:
            if not secure:
                connection.sendall(f"HEAD / HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                return bool(connection.recv(1))
            # A firewall that swallows everything accepts connections too. Nothing is trusted here: only asked.
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(connection, server_hostname=host):
                return True
    except (OSError, ValueError, HTTPException):
        return False
