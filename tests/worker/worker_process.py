"""A worker as a real process, started by its path in a Python that has no slotdeck."""

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

PROGRAM = Path(__file__).resolve().parents[2] / "engine" / "worker" / "__main__.py"
START_LIMIT_S = 600.0
_PIN = "import os,sys; os.sched_setaffinity(0, {%d}); os.execv(sys.argv[1], sys.argv[1:])"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def launch(*arguments: str, api_key: str | None = None) -> subprocess.Popen[str]:
    """On one core, with a bare environment; -I keeps the project's own folder off the path."""
    core = max(os.sched_getaffinity(0))
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    if api_key is not None:
        environment["SLOTDECK_API_KEY"] = api_key
    command = [sys.executable, "-I", "-u", str(PROGRAM), *arguments]
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PIN % core, *command],
        env=environment,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@dataclass
class Worker:
    process: subprocess.Popen[str]
    port: int
    name: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            yield connection
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        with self.connection() as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = (answer.getheader("content-type") or "").startswith("application/json")
            return answer.status, json.loads(text) if is_json else text

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.connection() as connection:
            connection.request("POST", path, data, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def complete(self, prompt: Any, **fields: Any) -> dict[str, Any]:
        status, made = self.post("/v1/completions", {"prompt": prompt, "temperature": 0, **fields})
        assert status == 200, made
        assert isinstance(made, dict)
        return made

    def stream(self, path: str, **fields: Any) -> Iterator[dict[str, Any]]:
        """Each event as it comes; the last one must be [DONE]."""
        body = json.dumps({"temperature": 0, **fields, "stream": True})
        with self.connection() as connection:
            connection.request("POST", path, body)
            answer = connection.getresponse()
            assert answer.status == 200
            assert (answer.getheader("content-type") or "").startswith("text/event-stream")
            is_done = False
            while line := answer.readline():
                if line.startswith(b"data: [DONE]"):
                    is_done = True
                elif line.startswith(b"data: "):
                    yield json.loads(line[6:])
            assert is_done

    def metrics(self) -> dict[str, float]:
        """Samples without buckets; labels other than the model's are written into the name."""
        found: dict[str, float] = {}
        _, text = self.get("/metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                rest = {
                    key: value
                    for key, value in sample.labels.items()
                    if key not in ("engine", "model_name")
                }
                if "le" not in rest:
                    name = sample.name + "".join(f"/{value}" for value in rest.values())
                    found[name] = sample.value
        return found

    def wait_until(self, name: str, value: float, limit_s: float = 60) -> None:
        deadline = time.monotonic() + limit_s
        while self.metrics()[name] != value:
            assert time.monotonic() < deadline, f"{name} never became {value}"
            time.sleep(0.02)


def start_worker(
    model: Path, *arguments: str, api_key: str | None = None, threads: int = 1
) -> Worker:
    port = free_port()
    process = launch(
        *("--model", str(model), "--port", str(port), "--threads", str(threads), *arguments),
        api_key=api_key,
    )
    worker = Worker(process, port, model.name)
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"the worker ended: {process.stderr.read()}")
        with contextlib.suppress(OSError):
            if worker.get("/health")[0] == 200:
                return worker
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"the worker did not become ready: {process.communicate()[1]}")
        time.sleep(0.05)


def stop_worker(worker: Worker) -> None:
    if worker.process.poll() is None:
        worker.process.terminate()
    worker.process.communicate(timeout=60)


def refused(*arguments: str, api_key: str | None = None) -> tuple[int, str]:
    """Exit code and message of a worker that cannot start."""
    process = launch(*arguments, api_key=api_key)
    _, message = process.communicate(timeout=START_LIMIT_S)
    return process.returncode, message
