"""``headstart demo`` in a real browser: an image that is dropped gets the run's answer; nothing leaves the machine."""

import importlib.util
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser_testing import Browser, find_browser

import headstart
from headstart.commands.demo import main
from headstart.errors import ConfigError

SUBMIT = "[...document.querySelectorAll('button')].find(button => button.innerText.trim() === 'Submit')"


def listening(port: int) -> set[str]:
    """Addresses at which a port of this machine is open, as the kernel writes them."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}


@pytest.mark.slow
def test_an_image_gets_the_runs_answer_in_a_browser(train, image_folder, tmp_path: Path):
    executable = find_browser()
    if executable is None or importlib.util.find_spec("gradio") is None:
        pytest.skip("needs Chromium and Gradio")
    root = image_folder(size=48)
    run = train("strategy=full", "trainer.max_epochs=1", root=root).run.path
    image = str(root / "val" / "bee" / "000.png")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "headstart", "demo", str(run), "--port", str(port), "--device", "cpu"]
    server = subprocess.Popen(command, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 300
        while not listening(port):
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert listening(port) == {"0100007F"}
        with Browser(executable, tmp_path / "profile") as browser:
            browser.visit(f"http://127.0.0.1:{port}")
            browser.wait("document.querySelector('input[type=file]') !== null")
            document = browser.call("DOM.getDocument")["root"]["nodeId"]
            field = browser.call("DOM.querySelector", nodeId=document, selector="input[type=file]")["nodeId"]
            browser.call("DOM.setFileInputFiles", nodeId=field, files=[image])
            browser.wait("document.querySelector('img[src*=\"/file=\"], .image-frame img') !== null")
            assert "%" not in browser.evaluate("document.body.innerText")
            browser.evaluate(f"{SUBMIT}.click()")
            browser.wait("document.body.innerText.includes('%')")
            text = browser.evaluate("document.body.innerText")
            asked = {urlsplit(address).hostname for address in browser.requests()}
    finally:
        server.terminate()
        server.wait(timeout=60)
    found = headstart.load(run).predict(image, device="cpu")
    assert f"{found.label}\n" in text
    assert f"{round(100 * max(found.probabilities))}%" in text
    assert asked <= {"127.0.0.1", None}


def test_without_gradio_a_line_says_what_to_install(tmp_path: Path, finished, monkeypatch: pytest.MonkeyPatch):
    from headstart.runs.directory import RunDirectory
    from headstart.runs.result import write_result

    run = RunDirectory.open(tmp_path, "study", "a", "1" * 8)
    write_result(run.path, finished(fingerprint="1" * 8))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs Gradio: pip install 'headstart\[demo\]'"):
        main([str(run.path)])
