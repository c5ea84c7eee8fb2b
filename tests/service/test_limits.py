"""Limits of memory and CPU time, core files, the order of dying: asked, and read from /proc."""

import contextlib
import errno
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.control import StopInstances
from engine.core.limits import Limits
from engine.core.status import State
from engine.host.limit_groups import groups_for, limits_in_force
from engine.host.numa import process_policy
from engine.host.root import HostRoot
from tests.processes import Home, a_home, eventually_async
from tests.service.test_placed import core_limit, oom_score

DROP_CAP_SYS_RESOURCE = "import ctypes; assert ctypes.CDLL(None).prctl(24, 24, 0, 0, 0) == 0"
"""From the bounding set (prctl(2), capabilities(7)): what is executed has it no more."""
QUICK = "patience=Policy(backoff_first_s=0.05, max_failures=1)"


@pytest.fixture
def home() -> Iterator[Home]:
    """Its service is killed at the end, and so takes no group away."""
    folders: list[Path] = []
    with a_home() as one:
        yield one
        if one.paths.journal.exists():
            running = [row["running"] for row in one.journal()["instances"]]
            folders = [Path("/", folder) for each in running if each for folder in each["limits"]]
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()


def refused(limits: Limits) -> str:
    """Why this machine cannot keep such a limit; empty where it can."""
    return "; ".join(one.why for one in groups_for(HostRoot(), "x", limits)[1])


def folders_of(pid: int | None, home: Home) -> list[Path]:
    (row,) = home.journal()["instances"]
    assert row["launched"]["pid"] == pid
    return [Path("/", folder) for folder in row["running"]["limits"]]


def write_quota(folder: Path, version_2: str, version_1: str) -> None:
    for file, text in (("cpu.max", version_2), ("cpu.cfs_quota_us", version_1)):
        if (folder / file).exists():
            (folder / file).write_text(text)


async def test_cpu_time_is_limited_and_the_group_goes_with_the_instance(home: Home) -> None:
    if why := refused(Limits(cpu_cores=0.5)):
        pytest.skip(why)
    client = await home.connect()
    wish = {"name": "a", "cpu_limit": 0.5, "flags": ["--busy", "--fork-child"]}
    status = (await home.up(client, wish)).instances[0]
    assert status.verified is True, status.why
    (folder,) = folders_of(status.pid, home)
    inside = {int(pid) for pid in (folder / "cgroup.procs").read_text().split()}
    assert inside == set(home.engines())
    assert len(inside) == 2

    def throttled() -> int:
        told = (folder / "cpu.stat").read_text()
        return int(re.findall(r"^nr_throttled (\d+)$", told, re.MULTILINE)[0])

    assert limits_in_force(HostRoot(), status.pid or 0) == Limits(cpu_cores=0.5)
    # On a busy machine it may never get half a core: with less the limit is sure to be felt.
    write_quota(folder, "1000 100000", "1000")
    await eventually_async(throttled)
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    await eventually_async(lambda: not folder.exists())


async def test_a_limit_that_somebody_takes_away_is_a_difference(home: Home) -> None:
    if why := refused(Limits(cpu_cores=0.5)):
        pytest.skip(why)
    client = await home.connect()
    status = (await home.up(client, {"name": "a", "cpu_limit": 0.5})).instances[0]
    (folder,) = folders_of(status.pid, home)
    write_quota(folder, "max", "-1")
    (checked,) = (await client.verify(("a",))).instances
    (difference,) = checked.differences
    assert (difference.what, difference.asked, difference.got) == (
        *("limits", "the time of 0.5 cores"),
        "no limit is in force",
    )


async def test_an_engine_over_its_memory_limit_ends_with_the_figure(home: Home) -> None:
    if why := refused(Limits(memory_bytes=128 << 20)):
        pytest.skip(why)
    client = await home.served(QUICK)
    wish = {"name": "a", "memory_limit": "128MiB", "flags": ["--touch-mib", "400"]}
    await home.apply(client, home.layout(wish))
    status = await home.until_state(client, "a", State.FAILED)
    assert "memory ran out" in status.why
    assert "at its limit of 128 MiB" in status.why
    assert "Raise memory_limit" in status.why


async def test_a_limit_that_cannot_be_kept_refuses_the_start_or_is_shown(home: Home) -> None:
    if not (why := refused(Limits(memory_bytes=1 << 30))):
        pytest.skip("this machine can limit memory")
    client = await home.served(QUICK)
    layout = home.layout(
        {"name": "a", "memory_limit": "1GiB"},
        {"name": "b", "memory_limit": "1GiB", "allow_degraded": True},
    )
    await home.apply(client, layout)
    failed = await home.until_state(client, "a", State.FAILED)
    assert failed.why.startswith(f"{why}. Start slotdeck in a scope of its own")
    assert "allow_degraded = true" in failed.why
    found = await home.until(client, lambda now: now["b"].verified is not None)
    status = found.instances[1]
    assert (status.state, status.verified) == (State.READY, False)
    assert f"{why}, asked 1 GiB of memory" in status.why


async def test_the_order_of_dying_and_core_files_are_as_the_layout_says(home: Home) -> None:
    client = await home.served(
        launcher="import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 1 << 20))"
    )
    a, b = {"name": "a", "oom_score_adj": 500, "core_dumps": True}, {"name": "b"}
    one, other = (await home.up(client, a, b)).instances
    assert one.verified is True, one.why
    assert one.pid is not None
    assert other.pid is not None
    assert (oom_score(one.pid), core_limit(one.pid)) == (500, str(1 << 20))
    assert (oom_score(other.pid), core_limit(other.pid)) == (300, "0")


async def test_a_score_that_may_not_be_lowered_refuses_the_start_or_is_shown(home: Home) -> None:
    own = oom_score(os.getpid())
    if own - 1 < -1000:
        pytest.skip("nothing is lower than the score of these tests")
    client = await home.served(QUICK, launcher=DROP_CAP_SYS_RESOURCE if os.getuid() == 0 else "")
    layout = home.layout(
        {"name": "a", "oom_score_adj": own - 1},
        {"name": "b", "oom_score_adj": own - 1, "allow_degraded": True},
    )
    await home.apply(client, layout)
    failed = await home.until_state(client, "a", State.FAILED)
    assert failed.why == (
        f"oom_score_adj = {own - 1} was refused ({os.strerror(errno.EACCES)}): to lower it takes "
        f"CAP_SYS_RESOURCE. Write one that is not below slotdeck's own ({own}), or "
        "allow_degraded = true"
    )
    found = await home.until(client, lambda now: now["b"].verified is not None)
    status = found.instances[1]
    assert (status.state, status.verified) == (State.READY, False)
    assert f"oom_score_adj = {own - 1} was refused: it is {own}" in status.why


async def test_weighted_interleave_takes_or_is_refused_in_plain_words(home: Home) -> None:
    client = await home.served(QUICK)
    await home.apply(client, home.layout({"name": "a", "memory": "weighted-interleave"}))
    settled = (State.READY, State.FAILED)
    found = await home.until(client, lambda now: now["a"].state in settled)
    (status,) = found.instances
    if status.state is State.FAILED:
        assert "this kernel has no weighted interleave (Linux 6.9 is the first)" in status.why
        pytest.skip(f"Linux {platform.release()} has no weighted interleave")
    found = await home.until(client, lambda now: now["a"].verified is not None)
    assert found.instances[0].verified is True, found.instances[0].why
    assert status.pid is not None
    assert process_policy(HostRoot(), status.pid) == "weighted interleave:0"
