"""Containers often refuse the memory policy; that is said, or allowed and shown."""

import platform

import pytest

from engine.core.status import State
from tests.processes import Home

# seccomp(2), a classic BPF program over struct seccomp_data: EPERM for set_mempolicy and mbind.
REFUSE = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
ops = [(0x20, 0, 0, 0), (0x15, 1, 0, 238), (0x15, 0, 1, 237), (0x06, 0, 0, 0x50001),
       (0x06, 0, 0, 0x7fff0000)]
code = b"".join(struct.pack("HBBI", *op) for op in ops)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
program = Program(len(ops), code)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program)) == 0, ctypes.get_errno()
"""
LAUNCHER = f"exec({REFUSE!r})"

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the filter names x86-64's system calls"
)


async def test_a_refused_policy_stops_that_instance_only(home: Home) -> None:
    client = await home.served(launcher=LAUNCHER)
    wishes = [{"name": "a"}, {"name": "b", "memory": "local"}]
    await home.apply(client, home.layout(*wishes))
    failed = await home.until_state(client, "a", State.FAILED)
    assert failed.why == (
        "the kernel refuses the memory policy (set_mempolicy: Operation not permitted), as "
        "containers do by seccomp. Start the container with --cap-add SYS_NICE and "
        '--security-opt seccomp=unconfined, or write memory = "local" or allow_degraded = true'
    )
    assert failed.pid is None
    # Local is what a process has anyway: nothing is asked of the kernel.
    other = await home.until_state(client, "b", State.READY)
    snapshot = await home.until(client, lambda now: now["b"].verified is not None)
    assert snapshot.instances[1].verified is True, snapshot.instances[1].why
    assert len(home.engines()) == 1
    assert other.pid in home.engines()


async def test_with_allow_degraded_it_runs_unbound_and_says_so(home: Home) -> None:
    client = await home.served(launcher=LAUNCHER)
    snapshot = await home.up(client, {"name": "a", "allow_degraded": True})
    status = snapshot.instances[0]
    assert status.verified is False
    assert "memory bind on 0 was refused: Operation not permitted" in status.why
