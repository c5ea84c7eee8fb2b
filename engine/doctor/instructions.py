"""Whether the instructions are there, and may be used, that engines on CPUs are quick with.

AVX-512 and AMX stand in /proc/cpuinfo once the kernel has switched them on. For AMX a process must
also ask, and the kernel tells what may be asked for (Documentation/arch/x86/xstate.rst). vLLM's
and Intel's guides for CPUs ask for AVX-512; BF16 and INT8 are several times quicker with AMX.
"""

import os

from engine.core.checks import Check, Evidence
from engine.doctor.host import Host, unknown
from engine.host.device_root import DeviceRoot
from engine.host.processor import read_processor

ID = "instructions"
_WORTH = (
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)
_GUEST = "give the guest its host's processor (QEMU: -cpu host)"


def check(host: Host) -> Check:
    """`flags` of the first PU."""
    processor = read_processor(DeviceRoot.of(host.root))
    if processor.flags is None:
        return unknown(
            ID,
            "the processor's instructions are not told",
            "no flags in /proc/cpuinfo: not recorded, or not an x86 processor",
            (Evidence("/proc/cpuinfo flags"),),
        )
    has = [flag for flag in _WORTH if flag in processor.flags]
    evidence = (
        Evidence("/proc/cpuinfo model name", processor.model),
        Evidence("/proc/cpuinfo flags", " ".join(has) or "none of AVX-512 and AMX"),
    )
    guest = "hypervisor" in processor.flags
    if "avx512f" not in has:
        return Check(
            ID,
            "advice",
            "no AVX-512",
            evidence,
            "engines on CPUs fall back to slower paths: products in BF16 and INT8 take several "
            "times as many instructions",
            f"{_GUEST}, if the host has it"
            if guest
            else "use another machine for CPU engines, or GPUs",
            needs=("a restart of the guest",) if guest else (),
        )
    if "amx_tile" in has:
        return _amx(host, has, evidence)
    if "avx512_fp16" in has and "Intel" in (processor.model or ""):
        return Check(
            ID,
            "advice",
            "AVX-512, but no AMX, on a generation that has it",
            evidence,
            "FP16 came to Xeons together with AMX: firmware or a hypervisor hides it, and prompts "
            "in BF16 and INT8 are computed several times slower",
            _GUEST if guest else "switch AMX on in the firmware, use a kernel from 5.16 on",
            needs=("a restart of the guest",) if guest else ("firmware", "reboot"),
        )
    return Check(ID, "ok", "AVX-512; this processor has no AMX", evidence)


def _amx(host: Host, has: list[str], evidence: tuple[Evidence, ...]) -> Check:
    if host.answers is None:
        found = "AVX-512 and AMX; whether a process may use AMX only the machine itself can tell"
        return Check(ID, "ok", found, evidence)
    refused = host.answers.amx
    words = os.strerror(refused) if refused else "allowed"
    evidence = (*evidence, Evidence("arch_prctl(ARCH_GET_XCOMP_SUPP)", words))
    if not refused:
        return Check(ID, "ok", "AVX-512 and AMX, which a process may use", evidence)
    return Check(
        ID,
        "problem",
        "the processor has AMX, but the kernel refuses it to processes",
        evidence,
        "engines that see the flag and use it end with an illegal instruction; others fall back "
        "to much slower products",
        "in a container, allow arch_prctl in its seccomp profile; else use a kernel from 5.16 on",
        needs=("a restart of the container",),
    )
