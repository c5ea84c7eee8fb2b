"""What limits come to in a guest: at the top of version 2, in a group of ours, in version 1.

python -m tests.numa.limits_story FILE WHERE
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.control import MoveInstance, StopInstances
from engine.core.status import State
from engine.host.numa import process_policy
from engine.host.root import HostRoot
from tests.numa.story import SLOW_S
from tests.processes import Home, a_home, eventually_async

MIB = 128
QUICK = "idle_exit_s=600, patience=Policy(backoff_first_s=0.05, max_failures=1)"


def handed_over() -> None:
    """As systemd does with `Delegate=yes`."""
    top, ours = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/ours")
    (top / "cgroup.subtree_control").write_text("+memory +cpu +cpuset")
    ours.mkdir()
    os.setxattr(ours, "trusted.delegate", b"1")
    (ours / "cgroup.procs").write_text("0")


def group_of(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/cgroup").read_text().split()


def groups() -> list[str]:
    """Of instances; one that goes while we look is gone."""
    found = [name for _, folders, _ in os.walk("/sys/fs/cgroup") for name in folders]
    return [name for name in found if name.startswith(("slotdeck-", "slotdeck_"))]


async def tell(home: Home, told: dict[str, Any]) -> None:
    client = await home.served(QUICK, within_s=SLOW_S)
    wish: dict[str, Any] = {
        "name": "a",
        "slot": "numa:0/core:0",
        "cpu_limit": 0.5,
        "memory_limit": f"{MIB}MiB",
        "flags": ["--touch-mib", "8"],
    }
    await home.apply(client, home.layout(wish))

    def settled(now: dict[str, Any]) -> bool:
        return "a" in now and now["a"].state is State.READY and now["a"].verified is not None

    status = (await home.until(client, settled, within_s=SLOW_S)).instances[0]
    told["up"] = [status.verified, status.why, group_of(status.pid)]
    # A move takes the engine into a cpuset, in version 2 inside of that group: the limits go on.
    offer = await client.offer(MoveInstance("a", "numa:1/core:0"))
    await client.apply(offer)
    status = (await home.until(client, settled, within_s=SLOW_S)).instances[0]
    (checked,) = (await client.verify(("a",))).instances
    told["moved"] = {
        "live": [list(offer.live), status.slot, list(offer.consequences)],
        "differences": [str(one) for one in checked.differences],
        "policy": process_policy(HostRoot(), status.pid or 0),
        "groups": group_of(status.pid),
    }
    await home.apply(client, StopInstances(("a",), forget=True))
    await home.until(client, lambda now: not now, within_s=SLOW_S)
    # When an instance has ended its group goes a moment later.
    await eventually_async(lambda: set(groups()) <= {"slotdeck_service"}, within_s=SLOW_S)
    await home.apply(client, home.layout({**wish, "flags": ["--touch-mib", str(3 * MIB)]}))
    over = await home.until_state(client, "a", State.FAILED, within_s=SLOW_S)
    told["over"] = over.why
    await eventually_async(lambda: set(groups()) <= {"slotdeck_service"}, within_s=SLOW_S)


if __name__ == "__main__":
    if sys.argv[2] == "ours":
        handed_over()
    found: dict[str, Any] = {}
    with a_home() as one:
        try:
            asyncio.run(tell(one, found))
        finally:
            Path(sys.argv[1]).write_text(json.dumps(found, indent=1))
            print(json.dumps(found), flush=True)  # noqa: T201 - for the log
