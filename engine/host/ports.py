"""TCP ports that somebody listens on, from /proc/net/tcp and tcp6 (proc_net(5))."""

import re

from engine.host.root import HostRoot

_LISTEN = "0A"


def listening_ports(root: HostRoot) -> frozenset[int]:
    """Ports with a listening socket on any address of this network namespace."""
    ports: set[int] = set()
    for name in ("proc/net/tcp", "proc/net/tcp6"):
        for line in (root.text(name) or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == _LISTEN:
                port = fields[1].rpartition(":")[2]
                if re.fullmatch(r"[0-9A-Fa-f]{1,4}", port):
                    ports.add(int(port, 16))
    return frozenset(ports)
