"""Another machine for tests: a home of its own behind a program that stands in for ssh."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import ROOT, Home, alive

SSH = """#!/bin/sh
echo "$$ $*" >> {calls}
while [ "$1" != -- ]; do shift; done
host=$2; shift 2
case ${{host##*@}} in
  changed) echo "Host key for changed has changed and you have requested strict checking.
Host key verification failed." >&2; exit 255;;
  unknown) echo "Host key verification failed." >&2; exit 255;;
  nowhere) echo "ssh: Could not resolve hostname nowhere: Name not known" >&2; exit 255;;
  down) echo "ssh: connect to host down port 22: Connection refused" >&2; exit 255;;
  refused) echo "me@refused: Permission denied (publickey)." >&2; exit 255;;
  chatty) echo "Welcome to chatty!";;
  empty) exec env -i PATH=/nowhere {sh} -c "$*";;
  old) echo "slotdeck: There is no command 'relay'" >&2; exit 2;;
esac
exec env -i {variables} {sh} -c "exec $*"
"""


class Faraway:
    """`here` is where commands are typed, `there` where the service and the engines run."""

    def __init__(self, here: Home, there: Home) -> None:
        self.here, self.there = here, there
        self.calls = here.folder / "calls"
        self.ssh = here.folder / "fake-ssh"
        variables = shlex.join(f"{name}={value}" for name, value in there.environment.items())
        self.ssh.write_text(SSH.format(calls=self.calls, variables=variables, sh="/bin/sh"))
        self.ssh.chmod(0o755)
        self.environment = {**here.environment, "SLOTDECK_SSH": str(self.ssh)}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "engine.cli.main", *words]

    def run(self, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """A command line as it stands."""
        return subprocess.run(
            self.argv(*words),
            env={**self.environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    def ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The same for the service there."""
        return self.run("--host", "me@there", *words)

    def links(self) -> list[int]:
        """The stand-ins for ssh that live."""
        if not self.calls.exists():
            return []
        pids = [int(line.split()[0]) for line in self.calls.read_text().splitlines()]
        return [pid for pid in pids if alive(pid)]

    def cut(self) -> int:
        """Kill them all, as when a network goes; returns how many there were."""
        links = self.links()
        for pid in links:
            os.kill(pid, signal.SIGKILL)
        return len(links)

    def layout(self, *instances: dict[str, Any]) -> str:
        """The path of a layout file here."""
        path: Path = self.here.folder / "here.toml"
        path.write_text(self.there.layout(*instances, name="here").text)
        return str(path)
