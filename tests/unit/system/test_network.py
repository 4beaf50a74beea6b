"""Whether a server answers, found out within seconds."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from headstart.system import network
from headstart.system.network import reachable

LONG_S = 60.0  # for what answers at once, and only a busy machine makes take longer


class Answer(BaseHTTPRequestHandler):
    """Answers as a server that knows only one page, or as a proxy that knows one other server."""

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "http://allowed.invalid/data" else 403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # it keeps the proxies of the process's first request
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answer) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def test_a_silent_network_is_given_up_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    given_up, waited = threading.Event(), []

    def stay_silent(*_: Any, **__: Any) -> None:
        waited.append(given_up.wait(60))
        raise OSError("timed out")

    monkeypatch.setattr(socket, "create_connection", stay_silent)
    assert not reachable("https://images.invalid/data.tgz", timeout_s=0.2)
    assert not waited
    given_up.set()
    assert network.PROBE_TIMEOUT_S <= 3


def test_a_server_that_answers_is_reachable_whatever_it_says(server: HTTPServer) -> None:
    assert reachable(f"http://127.0.0.1:{server.server_port}/x", timeout_s=LONG_S)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_accepts_and_never_answers_is_not(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not reachable(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x", timeout_s=0.3)
        assert time.monotonic() - start < LONG_S


def test_a_secure_server_is_reachable_whoever_signed_for_it(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ask = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=example"
    subprocess.run([*ask.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True):
                pass  # the other side may have gone already

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert reachable(f"https://127.0.0.1:{listener.getsockname()[1]}/x", timeout_s=LONG_S)
        thread.join(LONG_S)


def test_a_proxy_is_asked_whether_it_lets_this_through(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    assert reachable("http://allowed.invalid/data", timeout_s=LONG_S)
    assert not reachable("http://refused.invalid/data", timeout_s=LONG_S)
    monkeypatch.setenv("no_proxy", "allowed.invalid")
    assert not reachable("http://allowed.invalid/data", timeout_s=0.5)


def test_a_proxy_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        assert not reachable("https://images.invalid/data.tgz", timeout_s=0.3)
        assert time.monotonic() - start < LONG_S
