"""The same over a real sshd on the loopback, started for the test; skipped where there is none."""

import getpass
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faraway import Faraway
from tests.processes import ROOT, a_home, alive, eventually, free_ports
from tests.tui.terminal import Terminal

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh") is None, reason="sshd or ssh is not installed"
)
CONFIG = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv {variables}
"""


class Server:
    """An sshd of ours, whose sessions are those of another user's folders."""

    def __init__(self, far: Faraway) -> None:
        self.far = far
        self.folder = far.there.folder
        for name in ("host_key", "key", "other_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(words, check=True)
        self.admit("key")
        (self.port,) = free_ports(1)
        variables = shlex.join(f"{name}={value}" for name, value in far.there.environment.items())
        config = self.folder / "sshd_config"
        config.write_text(CONFIG.format(port=self.port, folder=self.folder, variables=variables))
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # compiled in, for root alone
        host_key = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {host_key}")
        self.log = self.folder / "sshd.log"
        with self.log.open("wb") as log:
            self.sshd = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(config)], stderr=log, stdin=subprocess.DEVNULL
            )
        eventually(lambda: b"Server listening" in self.log.read_bytes() or self.sshd.poll())
        assert self.sshd.poll() is None, self.log.read_text()
        self.host = f"{getpass.getuser()}@127.0.0.1"
        far.environment["SLOTDECK_SSH"] = self.ssh("key")

    def admit(self, name: str, options: str = "") -> None:
        with (self.folder / "authorized_keys").open("a") as keys:
            keys.write(f"{options} {(self.folder / f'{name}.pub').read_text()}")

    def ssh(self, key: str, known: str = "known_hosts") -> str:
        return shlex.join(
            [
                *("ssh", "-F", "none", "-p", str(self.port), "-i", str(self.folder / key)),
                *("-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
                *("-o", f"UserKnownHostsFile={self.folder / known}"),
            ]
        )

    def ask(self, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return self.far.run("--host", self.host, *words, **more)

    def sessions(self) -> list[int]:
        """The sshd processes of connections, which are children of ours or of those."""
        return sorted(below(self.sshd.pid) - set(self.far.there.processes()))

    def close(self) -> None:
        self.sshd.terminate()
        self.sshd.wait(10)


def below(pid: int) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child, *below(child)}
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    with a_home() as here, a_home() as there:
        made = Server(Faraway(here, there))
        yield made
        made.close()
        eventually(lambda: not here.processes())  # ssh ends a moment after its server


def test_a_layout_over_ssh(server: Server) -> None:
    up = server.ask("up", server.far.layout({"name": "a"}), "--timeout", "60", "--json")
    assert up.returncode == 0, up.stderr
    assert json.loads(up.stdout)["instances"][0]["state"] == "ready"
    assert len(server.far.there.engines()) >= 1
    eventually(lambda: not server.sessions())  # nothing stays open, and the engine runs on
    assert "a: as asked" in server.ask("verify").stdout
    assert server.ask("down", "--all").stdout == "stopped: a\n"


def test_a_cut_connection_over_ssh(server: Server) -> None:
    argv = server.far.argv("--host", server.host, server.far.layout({"name": "a"}))[1:]
    with Terminal(*argv, size=(120, 40), **server.far.environment) as terminal:
        terminal.until("enter apply", 30)
        terminal.write(b"\r")
        terminal.until("● ready", 30)
        cut = server.sessions()
        assert cut
        for pid in cut:
            if alive(pid):
                os.kill(pid, 9)
        terminal.until("link cut")
        terminal.until(f"{server.host} answers", 30)
        terminal.until("● live")
        terminal.write(b"qq")
        terminal.until(terminal.ended)
        assert terminal.status == 0
    assert server.far.there.engines()
    eventually(lambda: not server.sessions())


def test_a_key_that_may_only_look(server: Server) -> None:
    assert server.ask("up", server.far.layout({"name": "a"}), "--timeout", "60").returncode == 0
    slotdeck = f"{sys.executable} -m engine.cli.main"
    server.admit("other_key", f'restrict,command="{slotdeck} relay --readonly"')
    other = {"SLOTDECK_SSH": server.ssh("other_key")}
    status = server.ask("status", "--json", **other)
    assert [one["name"] for one in json.loads(status.stdout)["instances"]] == ["a"]
    down = server.ask("down", "a", **other)
    assert down.returncode == 1
    assert "this connection is read-only" in down.stderr
    assert server.far.there.engines()


def test_keys_that_do_not_fit_are_told(server: Server) -> None:
    refused = server.ask("status", SLOTDECK_SSH=server.ssh("other_key"))
    assert refused.returncode == 1
    assert "Permission denied (publickey)" in refused.stderr
    assert "without a password" in refused.stderr
    unknown = server.ask("status", SLOTDECK_SSH=server.ssh("key", known="nobody"))
    assert unknown.returncode == 1
    assert "Host key verification failed" in unknown.stderr
    missing = server.ask("status", SLOTDECK_REMOTE="~/no/slotdeck")
    assert missing.returncode == 1
    assert "has no slotdeck that can be run" in missing.stderr
    assert str(ROOT) not in missing.stderr
