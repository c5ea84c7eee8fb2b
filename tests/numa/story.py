"""What happens inside a guest with four NUMA nodes; each chapter's findings go to a JSON file.

python -m tests.numa.story FILE
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.client import ServiceClient
from engine.control import MoveInstance, StopInstances
from engine.core.status import InstanceStatus
from engine.host.root import HostRoot
from engine.service.neighbours import free_memory
from tests.processes import Home, a_home
from tests.service.asking import send_off, stream

SLOW_S = 240.0
"""A guest without hardware to run on is about 25 times slower."""
MIB = 48
HOG = """
import sys, time
from engine.core.cpuset import NodeSet
from engine.host.numa import set_memory_policy
set_memory_policy("bind", NodeSet([int(sys.argv[1])]))
memory = bytearray(int(sys.argv[2]) << 20)
for offset in range(0, len(memory), 4096):
    memory[offset] = 1
print("full", flush=True)
time.sleep(600)
"""


def numa_maps(pid: int | str | None) -> tuple[dict[str, int], list[str]]:
    """Pages of its own memory by node, and the policies that stand in the file."""
    nodes: dict[str, int] = {}
    policies = set()
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        policies.add(line.split()[1])
        if " file=" in line:
            continue
        for node, pages in re.findall(r" N(\d+)=(\d+)", line):
            nodes[node] = nodes.get(node, 0) + int(pages)
    return nodes, sorted(policies)


def fill(node: int, mib: int) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-c", HOG, str(node), str(mib)]
    return subprocess.Popen(words, stdout=subprocess.PIPE)


def groups() -> list[str]:
    """Of instances that were moved."""
    return [name for name in HostRoot().names("sys/fs/cgroup") if name.startswith("slotdeck")]


class Story:
    def __init__(self, home: Home, client: ServiceClient, told: dict[str, Any]) -> None:
        self.home, self.client, self.told = home, client, told

    async def up(self, **wish: Any) -> InstanceStatus:
        flags = ["--touch-mib", str(MIB), "--itl-ms", "50"]
        change = self.home.layout({"name": "a", "flags": flags, **wish})
        await self.home.apply(self.client, change)
        return await self.settled()

    async def settled(self) -> InstanceStatus:
        """When it is ready and has been looked at."""
        now = await self.home.until(
            self.client,
            lambda each: (
                "a" in each and each["a"].state == "ready" and each["a"].verified is not None
            ),
            within_s=SLOW_S,
        )
        return now.instances[0]

    async def down(self) -> None:
        await self.home.apply(self.client, StopInstances(("a",), forget=True))
        await self.home.until(self.client, lambda each: not each, within_s=SLOW_S)

    async def check(self, *, repair: bool = False) -> dict[str, Any]:
        (one,) = (await self.client.verify(("a",), repair=repair)).instances
        found = [[each.what, each.got] for each in one.differences]
        return {"verified": one.verified, "differences": found, "repaired": list(one.repaired)}

    def tell(self, chapter: str, status: InstanceStatus, **more: Any) -> None:
        assert status.pid is not None
        nodes, policies = numa_maps(status.pid)
        self.told[chapter] = {
            "pid": status.pid,
            "pus": str(sorted(os.sched_getaffinity(status.pid))),
            "slot": status.slot,
            "verified": status.verified,
            "why": status.why,
            "pages": nodes,
            "policies": policies,
            **more,
        }
        print(chapter, json.dumps(self.told[chapter]), flush=True)  # noqa: T201 - for the log

    async def move(self, slot: str) -> dict[str, Any]:
        """Move with a request in flight; what was offered and what came of it."""
        before = (await self.client.snapshot()).instances[0]
        offer = await self.client.offer(MoveInstance("a", slot))
        answer = asyncio.ensure_future(stream(before, 40))
        started = time.monotonic()
        await self.client.apply(offer)
        await self.settled()
        seconds = time.monotonic() - started
        tokens = len(await answer)
        texts = [each.text for each in (await self.client.snapshot()).happenings]
        return {
            "live": list(offer.live),
            "consequences": list(offer.consequences),
            "tokens": tokens,
            "seconds": seconds,
            "moved": [text for text in texts if "moved to" in text][-1:],
        }

    async def tell_all(self) -> None:
        status = await self.up(slot="numa:1/core:0")
        self.tell("bound", status)
        await send_off(status, node=3)
        self.tell("pages gone", await self.settled(), check=await self.check())
        self.tell("pages repaired", status, check=await self.check(repair=True))
        await send_off(status, cpus=[0])
        self.tell("threads gone", status, check=await self.check())
        self.tell("threads repaired", status, check=await self.check(repair=True))
        how = await self.move("numa:2/core:0")
        self.tell("moved", await self.settled(), how=how)
        await send_off(status, mib=16)
        self.tell("had more memory", status, check=await self.check())
        await send_off(status, lock=True)
        how = await self.move("numa:0/core:1")
        self.tell("locked and moved", await self.settled(), how=how)
        await self.die_in_the_middle("numa:3/core:0")
        self.tell("died, repaired", await self.settled(), check=await self.check(repair=True))
        await self.fill_the_target("numa:3/core:0", node=3)
        await self.down()
        self.told["groups left"] = groups()
        await self.up(slot="numa:1/core:0")
        await self.die_in_the_middle("numa:2/core:0", chapter="died in its first move")
        self.told["its group"] = groups()
        await self.down()
        self.told["its group left"] = groups()
        await self.up(slot="numa:1/core:0", memory="local")
        how = await self.move("numa:2/core:0")
        self.tell("local moved", await self.settled(), how=how)
        await self.down()
        status = await self.up(slot="numa:1/core:0", memory="preferred")
        offer = await self.client.offer(MoveInstance("a", "numa:2/core:0"))
        self.tell("preferred", status, consequences=list(offer.consequences))
        await self.down()

    async def die_in_the_middle(self, slot: str, chapter: str = "died") -> None:
        """The service is killed while it carries pages."""
        status = (await self.client.snapshot()).instances[0]
        await send_off(status, mib=100)
        await self.home.apply(self.client, MoveInstance("a", slot))
        await self.home.until(
            self.client, lambda each: "pages: " in each["a"].why, within_s=SLOW_S
        )
        await self.home.kill_service(signal.SIGKILL)
        middle = numa_maps(status.pid)[0]
        self.client = await self.home.served("idle_exit_s=600", within_s=SLOW_S)
        after = await self.settled()
        self.tell(chapter, after, middle=middle, check=await self.check())

    async def fill_the_target(self, slot: str, *, node: int) -> None:
        """Somebody takes the memory there after the offer was made."""
        free = free_memory(HostRoot())[node] >> 20
        offer = await self.client.offer(MoveInstance("a", slot))
        hog = fill(node, free - 100)
        try:
            assert hog.stdout
            assert hog.stdout.readline() == b"full\n"
            await self.client.apply(offer)
            status = await self.settled()
        finally:
            hog.kill()
            hog.communicate()
        self.tell("no room", status, check=await self.check())


async def main(home: Home, told: dict[str, Any]) -> None:
    client = await home.served("idle_exit_s=600", within_s=SLOW_S)
    await Story(home, client, told).tell_all()


if __name__ == "__main__":
    found: dict[str, Any] = {}
    with a_home() as one:
        try:
            asyncio.run(main(one, found))
        finally:
            Path(sys.argv[1]).write_text(json.dumps(found, indent=1))
