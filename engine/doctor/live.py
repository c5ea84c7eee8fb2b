"""What only the running kernel answers, asked by calls that change nothing."""

import ctypes
import errno
import platform

from engine.core.limits import Limits
from engine.doctor.host import Answers
from engine.host.limit_groups import groups_for
from engine.host.logout import our_name
from engine.host.numa import memory_policy
from engine.host.root import HostRoot

_ARCH_PRCTL = 158
_SUPPORTED, _TILE_DATA = 0x1021, 18
"""ARCH_GET_XCOMP_SUPP and XFEATURE_XTILEDATA (Documentation/arch/x86/xstate.rst)."""


def ask(root: HostRoot) -> Answers:
    """As an engine that is started by us would be answered."""
    _, refused = groups_for(root, "doctor", Limits(memory_bytes=1 << 30, cpu_cores=1.0))
    return Answers(
        memory_policy=_policy(),
        amx=_amx(),
        user=our_name(),
        limits_refused=tuple((one.why.partition(": ")[2], one.do) for one in refused),
    )


def _policy() -> int:
    try:
        memory_policy()
    except OSError as error:
        return error.errno or errno.ENOSYS
    return 0


def _amx() -> int:
    if platform.machine() != "x86_64":
        return errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    features = ctypes.c_uint64()
    call = (ctypes.c_long(_ARCH_PRCTL), ctypes.c_int(_SUPPORTED), ctypes.byref(features))
    if int(libc.syscall(*call)) < 0:
        return ctypes.get_errno()
    return 0 if features.value >> _TILE_DATA & 1 else errno.EOPNOTSUPP
