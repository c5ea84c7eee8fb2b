"""A host root that also reads links and bytes, as the device tree of /sys needs."""

import os
from dataclasses import dataclass
from posixpath import dirname, normpath

from engine.host.root import HostRoot


@dataclass(frozen=True, slots=True)
class DeviceRoot(HostRoot):
    """`HostRoot` with symbolic links and binary files."""

    @classmethod
    def of(cls, root: HostRoot) -> "DeviceRoot":
        """The same root with these abilities; one that has them already stays itself."""
        return root if isinstance(root, DeviceRoot) else DeviceRoot(root.path)

    def link(self, name: str) -> str | None:
        """Where a symbolic link points, as a name under this root; None where there is none.

        Only the text of the link counts: the target need not exist. A link that leaves the root
        is not followed.
        """
        try:
            target = (self.path / name).readlink().as_posix()
        except (OSError, ValueError):  # absent, no link, or a name with a NUL
            return None
        whole = normpath(f"{dirname(name)}/{target}") if not target.startswith("/") else target
        return None if whole.startswith(("..", "/")) else whole

    def octets(self, name: str, most: int) -> bytes | None:
        """The first `most` bytes of a binary file, or None; the kernel may give fewer."""
        try:
            # Without blocking: in a recorded tree a pipe may stand where the kernel has a file.
            file = os.open(self.path / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):  # absent, not ours to read, or a name with a NUL
            return None
        try:
            return os.read(file, most)
        except OSError:  # a folder, or a device that is gone
            return None
        finally:
            os.close(file)

    def may_open(self, name: str) -> bool | None:
        """Whether we may read and write a device file; None on a recorded root, or without it."""
        if not self.live or not (self.path / name).exists():
            return None
        return os.access(self.path / name, os.R_OK | os.W_OK)
