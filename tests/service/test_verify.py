"""Asked against got, looked at again: what has left its place is found, and brought back."""

import os
import socket
from pathlib import Path

import pytest

from engine.control import Difference, StopInstances
from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import ControlError
from engine.core.placement import Placement
from engine.core.status import MemoryBinding, State
from engine.host.root import HostRoot
from engine.service.verification import Asked, differences, same_policy, summary
from tests.kernel_files import tree
from tests.machines_by_hand import with_gpus
from tests.processes import Home
from tests.service.asking import send_off
from tests.sysfs_tree import write_machine

needs_two_pus = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="somewhere else to go needs a second PU"
)


async def test_what_is_as_asked_is_verified(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a", "flags": ["--fork-child", "--touch-mib", "16"]})
    found = await client.verify()
    assert [(one.name, one.verified, one.differences) for one in found.instances] == [
        ("a", True, ())
    ]


@needs_two_pus
async def test_an_engine_that_pins_itself_elsewhere_is_found_and_brought_back(home: Home) -> None:
    client = await home.connect()
    before = (await home.up(client, {"name": "a", "slot": "core:1"})).instances[0]
    assert before.verified is True
    await send_off(before, cpus=[0])
    (one,) = (await client.verify(("a",))).instances
    assert not one.verified
    (difference,) = one.differences
    assert (difference.what, difference.asked) == ("affinity", "PU 1")
    assert difference.got == "1 thread may run on PU 0"
    assert "slotdeck verify a --repair" in difference.do
    status = (await client.snapshot()).instances[0]
    assert (status.verified, status.state) == (False, State.READY)
    assert "1 thread may run on PU 0, asked PU 1" in status.why

    (repaired,) = (await client.verify(("a",), repair=True)).instances
    assert repaired.verified
    assert "1 thread and 0 pages" in repaired.repaired[0]
    assert before.pid is not None
    assert os.sched_getaffinity(before.pid) == {1}
    assert (await client.snapshot()).instances[0].why == "generated a token"


async def test_threads_may_be_pinned_inside_the_slot(home: Home) -> None:
    client = await home.connect()
    before = (await home.up(client, {"name": "a", "slot": "machine"})).instances[0]
    await send_off(before, cpus=[min(CpuSet.parse(before.pus))])
    (one,) = (await client.verify(("a",))).instances
    assert one.verified, one.differences


async def test_only_what_is_ready_can_be_verified(home: Home) -> None:
    client = await home.connect()
    await home.up(client, {"name": "a"})
    await home.apply(client, StopInstances(("a",)))
    await home.until_state(client, "a", State.STOPPED)
    with pytest.raises(ControlError, match="a cannot be verified: it is stopped"):
        await client.verify(("a",))
    with pytest.raises(ControlError, match="There is no instance 'b'"):
        await client.verify(("b",))
    assert (await client.verify()).instances == ()


# Asked of this very process, with a placement made up for it


def asked(port: int) -> Asked:
    pus = CpuSet(os.sched_getaffinity(0))
    local = MemoryBinding("local", "")
    return Asked(os.getpid(), "", Placement("a", "torch", "machine", pus, local, (), 1, port, ()))


def test_the_port_must_be_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as own:
        port = own.getsockname()[1]
        assert differences(HostRoot(), asked(port)) == ()
    (difference,) = differences(HostRoot(), asked(port))
    assert difference.what == "port"
    assert difference.got == "nobody listens on it"


# A process with GPUs open, written as /proc shows it

PORT_ROW = "  0: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 777 1"


def engine_with(path: Path, cards: dict[int, str]) -> HostRoot:
    """Process 500 on the machine of `with_gpus`, listening on 8001; fdinfo of each open card."""
    root = write_machine(with_gpus(), path)
    tail = "S 1 500 500 " + "0 " * 15 + "77 0 4096"
    files = {
        "proc/500/stat": f"500 (engine) {tail}",
        "proc/500/task/500/status": "Cpus_allowed_list:\t0-3\n",
        "proc/net/tcp": f"  sl  local_address\n{PORT_ROW}\n",
    }
    files |= {f"proc/500/fdinfo/{20 + card}": text for card, text in cards.items()}
    tree(path, dict(files))
    folder = path / "proc/500/fd"
    folder.mkdir()
    (folder / "3").symlink_to("socket:[777]")
    for card in cards:
        (folder / str(20 + card)).symlink_to(f"/dev/dri/renderD{128 + card}")
    return root


def told(root: HostRoot, gpus: tuple[int, ...]) -> list[str]:
    local = MemoryBinding("local", "")
    placement = Placement("a", "vllm-xpu", "gpu", CpuSet(range(4)), local, gpus, 1, 8001, ())
    return [str(one) for one in differences(root, Asked(500, "", placement))]


HOLDS = "drm-driver:\txe\ndrm-total-vram0:\t8 GiB\ndrm-resident-vram0:\t7168 MiB\n"
LOOKED = "drm-driver:\txe\ndrm-total-vram0:\t12 MiB\n"


def test_gpus_are_held_as_asked_and_a_look_at_others_does_not_count(tmp_path: Path) -> None:
    root = engine_with(tmp_path, {0: HOLDS, 1: LOOKED, 2: "drm-driver:\txe\n"})
    assert told(root, (0,)) == []


def test_a_gpu_that_nobody_opened_and_one_that_was_not_asked(tmp_path: Path) -> None:
    root = engine_with(tmp_path, {1: HOLDS})
    wanted = "asked GPU 0 (/dev/dri/renderD128)"
    assert told(root, (0,)) == [
        f"none of its processes has opened GPU 0, {wanted}",
        f"it holds 7,168 MiB of GPU 1, {wanted}",
    ]
    assert told(root, ()) == ["it holds 7,168 MiB of GPU 1, asked no GPU"]


def test_the_summary_names_the_first_and_counts_the_rest() -> None:
    one, two = (Difference("port", f"port {n}", "nobody listens on it", "x") for n in (1, 2))
    assert summary(()) == ""
    assert summary((one,)) == "nobody listens on it, asked port 1"
    assert summary((one, two)) == (
        "nobody listens on it, asked port 1; and 1 more difference: see `slotdeck verify`"
    )


@pytest.mark.parametrize(
    ("shown", "policy", "nodes", "same"),
    [
        ("bind:0-1", "bind", "0-1", True),
        ("bind=static:0", "bind", "0", True),
        ("prefer:2", "preferred", "2", True),
        ("prefer (many):2", "preferred", "2", True),
        ("interleave:0,2", "interleave", "0,2", True),
        ("interleave:0,2", "interleave", "0", False),
        ("default", "bind", "0", False),
        ("bind:1", "bind", "0", False),
    ],
)
def test_policies_in_the_kernels_words(shown: str, policy: str, nodes: str, same: bool) -> None:
    assert same_policy(shown, policy, NodeSet.parse(nodes)) is same
