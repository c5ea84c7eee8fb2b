"""What goes wrong on two NUMA nodes: files cached elsewhere, a full node, a cpuset made narrow.

python -m tests.numa.troubles_story FILE
"""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.client import ServiceClient
from engine.core.errors import ControlError
from engine.host.nodes import numastat
from engine.host.root import HostRoot
from tests.numa.story import MIB, SLOW_S, Story, numa_maps
from tests.processes import Home, a_home

WEIGHTS = Path("/mnt/weights.bin")
MAPPER = Path(__file__).with_name("mapper.py")


def mapped_pages(pid: int | None) -> dict[str, int]:
    """Pages of the weights that a process has mapped, by node."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    (line,) = (line for line in lines if f"file={WEIGHTS}" in line)
    return {node: int(pages) for node, pages in re.findall(r" N(\d+)=(\d+)", line)}


def mapper(*, processes: int = 1) -> list[str]:
    return [sys.executable, "-S", str(MAPPER), str(WEIGHTS), str(processes)]


def counters(node: int) -> dict[str, int]:
    return numastat(HostRoot(), node)


def less(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in now.items()}


def bound_across() -> "subprocess.Popen[bytes]":
    """A program on a CPU of node 0 that takes memory of node 1, and ends."""
    words = ["numactl", "-C", "0", "-m", "1", sys.executable, "-S", "-c", f"b'x' * ({MIB} << 20)"]
    return subprocess.Popen(words)


def has_mapped() -> "subprocess.Popen[bytes]":
    """Another program with the same file."""
    process = subprocess.Popen(mapper(), stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"mapped\n"
    return process


class Troubles(Story):
    async def tell_all(self) -> None:
        await self.counted()
        await self.mapped("numa:1/core:0")
        await self.mapped("numa:0/core:0", processes=2)
        await self.mapped_by_others("numa:1/core:0")
        await self.too_large("numa:1/core:0")
        await self.narrowed("numa:1")

    async def counted(self) -> None:
        """The kernel's counts for an instance at home, and for a program that is bound across."""
        before = counters(1)
        status = await self.up(slot="numa:1/core:0")
        bound, pages = less(counters(1), before), numa_maps(status.pid)[0]
        before, shown = counters(1), None
        crossed = bound_across()
        while shown is None:
            if crossed.poll() is not None:
                crossed = bound_across()
            nodes = (await self.client.snapshot()).numa_nodes
            (node,) = (one for one in nodes if one.os_index == 1)
            if node.local_ratio is not None and node.local_ratio < 0.5:
                shown = [node.local_ratio, node.hit_ratio]
            await asyncio.sleep(0.1)
        crossed.wait()
        across = less(counters(1), before)
        self.note("counted", {"pages": pages, "bound": bound, "across": across, "shown": shown})
        await self.down()

    async def up_mapped(self, slot: str, processes: int = 1) -> int | None:
        words = [*mapper(processes=processes), "--port", "{port}"]
        return (await self.up(slot=slot, command=words)).pid

    async def look(self, pid: int | None, *, repair: bool = False) -> dict[str, Any]:
        (one,) = (await self.client.verify(("a",), repair=repair)).instances
        return {
            "verified": one.verified,
            "differences": [[each.what, each.got, each.do] for each in one.differences],
            "repaired": list(one.repaired),
            "pages": mapped_pages(pid),
        }

    def note(self, chapter: str, found: dict[str, Any]) -> None:
        self.told[chapter] = found
        print(chapter, json.dumps(found), flush=True)  # noqa: T201 - for the log

    async def mapped(self, slot: str, *, processes: int = 1) -> None:
        pid = await self.up_mapped(slot, processes)
        before = await self.look(pid)
        after = await self.look(pid, repair=True)
        self.note(f"mapped by {processes}", {"before": before, "after": after})
        await self.down()

    async def mapped_by_others(self, slot: str) -> None:
        stranger = has_mapped()
        pid = await self.up_mapped(slot)
        shared = await self.look(pid, repair=True)
        stranger.kill()
        stranger.communicate()
        alone = await self.look(pid, repair=True)
        self.note("shared", {"stranger": stranger.pid, "shared": shared, "alone": alone})
        await self.down()

    async def too_large(self, slot: str) -> None:
        change = self.home.layout({"name": "a", "slot": slot, "flags": ["--touch-mib", "600"]})
        await self.home.apply(self.client, change)
        now = await self.home.until(
            self.client, lambda each: "a" in each and each["a"].state == "failed", within_s=SLOW_S
        )
        self.note("too large", {"why": now.instances[0].why})
        await self.down()

    async def narrowed(self, slot: str) -> None:
        """The service's control group loses PUs after a plan was made."""
        change = self.home.layout({"name": "a", "slot": slot})
        offer = await self.client.offer(change)
        service = await self.home.service_pid()
        top = Path("/sys/fs/cgroup")
        (top / "cgroup.subtree_control").write_text("+cpuset")
        (top / "narrow").mkdir()
        (top / "narrow/cpuset.cpus").write_text("0-2")
        for pid in (service, *_children(service)):
            (top / "narrow/cgroup.procs").write_text(str(pid))
        said = ""
        try:
            await self.client.apply(offer)
        except ControlError as error:
            said = str(error)
        await self.home.apply(self.client, change)
        status = await self.settled()
        self.tell("narrowed", status, said=said, asked=str(status.pus))


def _children(pid: int) -> list[int]:
    told = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in told.split()]


async def main(home: Home, told: dict[str, Any]) -> None:
    client: ServiceClient = await home.served("idle_exit_s=600", within_s=SLOW_S)
    await Troubles(home, client, told).tell_all()


if __name__ == "__main__":
    subprocess.run(["taskset", "-c", "0", "md5sum", str(WEIGHTS)], check=True)
    found: dict[str, Any] = {}
    with a_home() as one:
        try:
            asyncio.run(main(one, found))
        finally:
            Path(sys.argv[1]).write_text(json.dumps(found, indent=1))
