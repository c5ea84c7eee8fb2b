"""TCP ports that somebody listens on, from /proc/net/tcp and tcp6 (proc_net(5))."""

import re

from engine.host.root import HostRoot

_LISTEN = "0A"


def listening_ports(root: HostRoot) -> frozenset[int]:
    """Ports with a listening socket on any address of this network namespace."""
    return frozenset(listeners(root))


def listeners(root: HostRoot) -> dict[int, frozenset[str]]:
    """The inodes of the listening sockets of each port: a process holds `socket:[INODE]`."""
    found: dict[int, frozenset[str]] = {}
    for name in ("proc/net/tcp", "proc/net/tcp6"):
        for line in (root.text(name) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                text = fields[1].rpartition(":")[2]
                if re.fullmatch(r"[0-9A-Fa-f]{1,4}", text):
                    port, inode = int(text, 16), fields[9:10]
                    found[port] = found.get(port, frozenset()) | frozenset(inode)
    return found
