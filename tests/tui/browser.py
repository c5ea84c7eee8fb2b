"""A headless Chromium, driven by its own WebDriver over plain HTTP."""

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1280,800"),
)
LISTEN = """
window.seen = "";
const Real = window.WebSocket;
window.WebSocket = class extends Real {
  constructor(...words) {
    super(...words);
    this.addEventListener("message", async (event) => {
      const data = event.data;
      window.seen += typeof data === "string" ? data : new TextDecoder().decode(data);
    });
  }
};
"""
"""What comes over the page's websockets, kept as text."""


class Browser:
    """One session of it."""

    def __init__(self, base: str, session: str) -> None:
        self._base = f"{base}/session/{session}"

    def call(self, path: str, body: dict[str, Any] | None = None, method: str = "POST") -> Any:
        return _call(f"{self._base}/{path}", body, method)

    def open(self, url: str) -> None:
        self.call("url", {"url": url})

    def run(self, script: str) -> Any:
        return self.call("execute/sync", {"script": script, "args": []})

    def press(self, keys: str) -> None:
        pressed = [
            step
            for key in keys
            for step in ({"type": "keyDown", "value": key}, {"type": "keyUp", "value": key})
        ]
        self.call("actions", {"actions": [{"type": "key", "id": "keys", "actions": pressed}]})

    def until(self, script: str, seconds: float = 60.0) -> None:
        """Wait until the script's value is true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, (
                f"never: {script}\n{self.run('return window.seen')!r}"
            )
            time.sleep(0.05)


@contextmanager
def browser() -> Iterator[Browser]:
    """Skips, visibly, where there is none."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium or chromedriver is not installed (Debian: chromium-driver)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            base = f"http://127.0.0.1:{_port(driver)}"
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
            session = _call(f"{base}/session", wanted)["sessionId"]
            made = Browser(base, session)
            try:
                listen = {"cmd": "Page.addScriptToEvaluateOnNewDocument"}
                made.call("goog/cdp/execute", {**listen, "params": {"source": LISTEN}})
                yield made
            finally:
                _call(f"{base}/session/{session}", None, "DELETE")
        finally:
            driver.terminate()
            driver.wait(20)
            if driver.stdout is not None:
                driver.stdout.close()


def _port(driver: "subprocess.Popen[str]") -> int:
    assert driver.stdout is not None
    for line in driver.stdout:
        if found := re.search(r"started successfully on port (\d+)", line):
            return int(found[1])
    raise AssertionError("chromedriver ended without a word")


def _call(url: str, body: dict[str, Any] | None, method: str = "POST") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["value"]
