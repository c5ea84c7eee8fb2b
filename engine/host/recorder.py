"""A host root that keeps what readers ask for, without what identifies a machine or its users."""

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from posixpath import dirname, normpath

from engine.host.device_root import DeviceRoot
from engine.host.pci import public_config
from engine.host.root import LARGEST_FILE


@dataclass(frozen=True, slots=True)
class Kept:
    """One entry of the record: a file, a link, or a folder."""

    content: bytes | None = None
    link: str | None = None


FOLDER = Kept()


def _lines(pattern: str) -> Callable[[bytes], bytes]:
    """Keeps only the lines that match."""

    def reduce(content: bytes) -> bytes:
        kept = [line for line in content.splitlines() if re.match(pattern.encode(), line)]
        return b"".join(line + b"\n" for line in kept)

    return reduce


_REDUCED: tuple[tuple[str, Callable[[bytes], bytes]], ...] = (
    (r"proc/[^/]+/status", _lines("(Cpus|Mems)_allowed_list:")),
    # The other lines change all the time: the same machine makes the same record.
    (r"sys/devices/system/node/node\d+/meminfo", _lines(r"Node \d+ MemTotal:")),
    (r"proc/meminfo", _lines("MemTotal:")),
    (r"proc/self/cgroup", _lines("0::|[0-9]+:([^:]*,)?cpuset[,:]")),
    (r"proc/(self/)?mount(s|info)", _lines(".* cgroup2? |[^ ]+ [^ ]+ cpuset ")),
    (r"sys/.*/uevent", _lines("(DRIVER|PCI_CLASS|PCI_ID)=")),
    # The configuration space may hold the device's serial number.
    (r"sys/.*/config", public_config),
)
_PRIVATE = re.compile(
    r"proc/([0-9]+(/.*)?|cmdline|version|sys/kernel/hostname|[^/]+/(environ|cmdline|comm|maps))"
    r"|(.*/)?(address|.*serial.*|.*uuid.*|unique_id|machine-id|boot_id|hostname|asset_tag)",
    re.IGNORECASE,
)
_SYSTEM = "sys/devices/system/"
_MOST_LINKS = 40
"""Linux gives up after as many."""


@dataclass(frozen=True, slots=True)
class Recorder(DeviceRoot):
    """Reads like any root; `kept` then holds just what was read, by name under the root.

    What is never kept is not told to the reader either, so that a reader works on the machine
    just as it will on the record.
    """

    kept: dict[str, Kept] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    """What was asked for and is private."""

    def raw(self, name: str) -> bytes | None:
        """As HostRoot; a reduced file's other lines are not told."""
        place = self._place(name)
        if place is None:
            return None
        if self._unread(place):
            self._keep(place, DeviceRoot.raw(self, place))
        return self.kept.get(place, FOLDER).content

    def octets(self, name: str, most: int) -> bytes | None:
        """As DeviceRoot; the configuration space's other capabilities are not told."""
        place = self._place(name)
        if place is None:
            return None
        if self._unread(place):
            self._keep(place, DeviceRoot.octets(self, place, LARGEST_FILE))
        content = self.kept.get(place, FOLDER).content
        return None if content is None else content[:most]

    def link(self, name: str) -> str | None:
        """As DeviceRoot."""
        if (folder := self._place(dirname(name))) is None:
            return None
        self._see(f"{folder}/{name.rpartition('/')[2]}")
        return DeviceRoot.link(self, name)

    def names(self, folder: str) -> tuple[str, ...]:
        """As HostRoot; private names are left out.

        Folders and links in it are kept. So are files of the kernel's own `system` folder, whose
        mere presence tells that a PU is online. Others are not, even as names: an empty file in
        the place of one would tell a later reader an empty list.
        """
        place = self._place(folder)
        if place is None:
            return ()
        told = DeviceRoot.names(self, place)
        if told:
            self.kept.setdefault(place, FOLDER)
        shown = tuple(name for name in told if not _PRIVATE.fullmatch(f"{place}/{name}"))
        for name in shown:
            self._see(f"{place}/{name}")
        return shown

    def _unread(self, place: str) -> bool:
        if _PRIVATE.fullmatch(place):
            self.refused.add(place)
            return False
        return place not in self.kept

    def _keep(self, place: str, content: bytes | None) -> None:
        if content is None:
            return  # absent, or not for us to read: it is so in the record, too
        for pattern, reduce in _REDUCED:
            if re.fullmatch(pattern, place):
                content = reduce(content)
        self.kept[place] = Kept(content=content)

    def _see(self, place: str) -> None:
        """Keep a link or a folder that stands there."""
        path = self.path / place
        try:
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                target = path.readlink().as_posix()
                if _inside(place, target) is not None:
                    self.kept.setdefault(place, Kept(link=target))
            elif stat.S_ISDIR(mode):
                self.kept.setdefault(place, FOLDER)
            elif place.startswith(_SYSTEM) and stat.S_ISREG(mode):
                self.text(place)
        except OSError:  # gone since it was listed
            return

    def _place(self, name: str) -> str | None:
        """The name without links on its way, which are kept; None where one leaves the root."""
        waiting, done, links = normpath(name).split("/"), "", 0
        while waiting:
            done = f"{done}/{waiting.pop(0)}".removeprefix("/")
            if done == "proc/self":
                continue  # a link to our own process's number, another one each time
            try:
                target = (self.path / done).readlink().as_posix()
            except (OSError, ValueError):  # no link, or nothing there: reading will tell
                continue
            links += 1
            whole = _inside(done, target)
            if whole is None or links > _MOST_LINKS:
                return None
            self.kept.setdefault(done, Kept(link=target))
            waiting, done = [*whole.split("/"), *waiting], ""
        return done


def _inside(place: str, target: str) -> str | None:
    whole = normpath(f"{dirname(place)}/{target}")
    return None if target.startswith("/") or whole.startswith(("..", "/")) else whole
