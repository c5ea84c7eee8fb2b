"""Whose a journal is: this host's, or that of another one with which it shares a home folder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from engine.host.process import boot_id
from engine.host.root import HostRoot


@dataclass(frozen=True, slots=True)
class Here:
    """What tells one host, and one boot of it, from others."""

    boot: str
    pids: str
    """The namespace of process ids, as its link in /proc says it; empty where it says nothing."""
    host: str
    """Its name, and a digest of its machine id (machine-id(5)), which is not for others to see."""

    @classmethod
    def of(cls, root: HostRoot) -> "Here":
        """This host, now."""
        try:
            pids = str((root.path / "proc/self/ns/pid").readlink())
        except OSError:
            pids = ""
        name = root.text("proc/sys/kernel/hostname") or "host"
        machine = hashlib.sha256((root.text("etc/machine-id") or "").encode()).hexdigest()[:8]
        return cls(boot_id(root), pids, f"{_plain(name)}-{machine}")

    def owns(self, boot: str, pids: str, host: str) -> bool:
        """Whether what was written there then is ours.

        A host may get another name while its engines run: what is of this very boot is ours. After
        a boot both name and id have to be the same: clones have one id, and many hosts one name.
        """
        if not host or host == self.host:
            return True
        return boot == self.boot and pids == self.pids


def other_owner(journal: Path, here: Here) -> str:
    """The host that a journal belongs to, where it is another one; empty where it is ours, or
    nobody's, or cannot be read."""
    try:
        page = json.loads(journal.read_bytes())
        boot, pids, host = (str(page.get(key, "")) for key in ("boot_id", "pids", "host"))
    except (OSError, ValueError, AttributeError):
        return ""
    return "" if here.owns(boot, pids, host) else host


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-." else "_" for char in name)[:64]
