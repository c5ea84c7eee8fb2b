"""Files written by hand, for every state that each check can tell."""

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.core.checks import Check
from engine.core.cpuset import CpuSet
from engine.core.topology import Machine, Missing
from engine.doctor import (
    allowed,
    clock_source,
    cpu_clock,
    cpu_limit,
    cpu_throttle,
    delegation,
    gpu_access,
    gpu_bar,
    gpu_clock,
    gpu_driver,
    gpu_link,
    gpu_node,
    gpu_throttle,
    group_limits,
    huge_pages,
    instructions,
    isolated_cores,
    logout,
    memory_modules,
    memory_policy,
    numa_balancing,
    numa_nodes,
    overcommit,
    power_cap,
    shared_memory,
    swap,
    turbo,
)
from engine.doctor.host import CPU, Answers, Host
from tests.machines_by_hand import (
    GIB,
    build,
    gpu,
    narrowed,
    server,
    small,
    with_memory_only_node,
    with_memoryless_node,
    without_nodes,
)
from tests.sysfs_tree import SysfsTree

Files = dict[str, str | bytes]
YES = Answers(memory_policy=0, amx=0, user="ann")
POLICY = f"{CPU}/cpufreq/policy"
RAPL = "sys/class/powercap/intel-rapl:0/"
CLOCK = "sys/devices/system/clocksource/clocksource0/"
HUGE = "sys/kernel/mm/transparent_hugepage/enabled"
DMI = "sys/firmware/dmi/tables/DMI"
CARD = "sys/bus/pci/devices/0000:03:00.0"
XE = f"{CARD}/tile0/gt0/freq0"
I915 = f"{CARD}/drm/card0/gt/gt0"
SESSION = "0::/user.slice/user-1000.slice/session-2.scope"
PROC = "22 1 0:1 / /proc rw - proc proc rw\n"


@dataclass(frozen=True)
class Case:
    check: Callable[[Host], Check | None]
    state: str
    words: str
    """In what was found."""
    files: Files = field(default_factory=dict)
    machine: Machine = field(default_factory=small)
    answers: Answers | None = YES


def governed(*governors: str, driver: str = "intel_pstate", epp: str | None = None) -> Files:
    files: Files = {}
    for number, governor in enumerate(governors):
        files[f"{POLICY}{number}/scaling_governor"] = governor
        files[f"{POLICY}{number}/scaling_driver"] = driver
        if epp is not None:
            files[f"{POLICY}{number}/energy_performance_preference"] = epp
    return files


def limited(*khz: int, most: int = 3_900_000) -> Files:
    files: Files = {f"{POLICY}{n}/scaling_max_freq": str(one) for n, one in enumerate(khz)}
    return files | {f"{POLICY}{n}/cpuinfo_max_freq": str(most) for n in range(len(khz))}


def capped(watts: int, most: int = 350) -> Files:
    return {
        f"{RAPL}name": "package-0",
        f"{RAPL}constraint_0_power_limit_uw": str(watts * 10**6),
        f"{RAPL}constraint_0_max_power_uw": str(most * 10**6),
    }


def cpuinfo(flags: str, model: str = "Intel(R) Xeon(R) 6972P") -> Files:
    return {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: {model}\nflags\t\t: fpu {flags}\n\n"}


def heated(count: int) -> Files:
    folder = f"{CPU}/cpu0/thermal_throttle/package_throttle_"
    return {f"{folder}count": str(count), f"{folder}total_time_ms": str(count * 100)}


def shm(options: str, rest: str = "") -> Files:
    return {"proc/self/mountinfo": f"{PROC}{rest}30 1 0:2 / /dev/shm rw - tmpfs shm {options}"}


def swapped(total: int, free: int) -> Files:
    return {"proc/meminfo": f"MemTotal: 9 kB\nSwapTotal: {total} kB\nSwapFree: {free} kB"}


def grouped(**limits: str) -> Files:
    mount = "30 1 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    inside: Files = {f"sys/fs/cgroup/a/{name}": text for name, text in limits.items()}
    return {"proc/self/mountinfo": mount, "proc/self/cgroup": "0::/a/b", **inside}


def dimm(mib: int, rated: int = 4800, configured: int = 4800) -> bytes:
    data = bytearray(0x28)
    struct.pack_into("<BBH", data, 0, 17, len(data), 7)
    struct.pack_into("<H", data, 0x0C, min(mib, 0x7FFF))
    struct.pack_into("<H", data, 0x15, rated)
    struct.pack_into("<IH", data, 0x1C, mib, configured)
    return bytes(data) + b"DIMM_A1\0\0"


def dmi(*slots: bytes) -> Files:
    before = struct.pack("<BBH", 16, 4, 1) + b"\0\0"
    end = struct.pack("<BBH", 127, 4, 9) + b"\0\0"
    return {DMI: b"".join([before, *slots, end])}


def carded(count: int = 1, nodes: int = 1, **changed: object) -> Machine:
    base = build([4] * nodes)
    best = {"link_best_gt_s": 16.0, "link_best_width": 16, "may_open": True}
    cards = [replace(gpu(n, 0), **{**best, **changed}) for n in range(count)]  # type: ignore[arg-type]
    return replace(base, gpus=tuple(cards))


def recorded_status(machine: Machine) -> Machine:
    row = Missing("proc/self/status Cpus_allowed_list", "not told")
    return replace(machine, missing=(*machine.missing, row))


CASES = [
    Case(cpu_clock.check, "ok", "performance, by acpi", governed("performance", driver="acpi")),
    Case(cpu_clock.check, "ok", "powersave", governed("powersave", epp="performance")),
    Case(
        cpu_clock.check,
        "advice",
        "with preference balance_power",
        governed("powersave", epp="balance_power"),
    ),
    Case(cpu_clock.check, "advice", "schedutil", governed("schedutil", driver="acpi-cpufreq")),
    Case(
        cpu_clock.check,
        "problem",
        "performance and powersave",
        governed("powersave", "powersave", "performance", driver="acpi-cpufreq"),
    ),
    Case(cpu_clock.check, "unknown", "is not told"),
    Case(cpu_clock.check, "unknown", "interactive", governed("interactive")),
    Case(cpu_limit.check, "ok", "highest", limited(3_900_000)),
    Case(cpu_limit.check, "advice", "2.00 of 3.90 GHz", limited(3_900_000, 2_000_000, 2_000_000)),
    Case(cpu_limit.check, "unknown", "not told", {f"{POLICY}0/scaling_max_freq": "3900000"}),
    Case(turbo.check, "ok", "are on", {f"{CPU}/intel_pstate/no_turbo": "0"}),
    Case(turbo.check, "advice", "are off", {f"{CPU}/intel_pstate/no_turbo": "1"}),
    Case(turbo.check, "ok", "are on", {f"{CPU}/cpufreq/boost": "1"}),
    Case(turbo.check, "advice", "are off", {f"{CPU}/cpufreq/boost": "0"}),
    Case(turbo.check, "unknown", "not told", {f"{CPU}/cpufreq/boost": ""}),
    Case(cpu_throttle.check, "ok", "no processor", heated(0)),
    Case(cpu_throttle.check, "advice", "boot: package 0 12 times, for 1.2 s", heated(12)),
    Case(cpu_throttle.check, "ok", "for a moment", heated(3)),
    Case(cpu_throttle.check, "unknown", "not told"),
    Case(power_cap.check, "ok", "every package", capped(350)),
    Case(power_cap.check, "advice", "package-0 is held to 200 W of 350 W", capped(200)),
    Case(power_cap.check, "unknown", "not told", capped(200, most=0)),
    Case(instructions.check, "ok", "a process may use", cpuinfo("avx512f amx_tile")),
    Case(
        instructions.check,
        "problem",
        "refuses",
        cpuinfo("avx512f amx_tile"),
        answers=replace(YES, amx=errno.EPERM),
    ),
    Case(instructions.check, "ok", "only the machine", cpuinfo("avx512f amx_tile"), answers=None),
    Case(instructions.check, "ok", "has no AMX", cpuinfo("avx512f avx512_vnni")),
    Case(instructions.check, "advice", "no AMX, on a", cpuinfo("avx512f avx512_fp16 hypervisor")),
    Case(instructions.check, "ok", "has no AMX", cpuinfo("avx512f avx512_fp16", "AMD EPYC")),
    Case(instructions.check, "advice", "no AVX-512", cpuinfo("avx2")),
    Case(instructions.check, "unknown", "not told", {"proc/cpuinfo": "processor\t: 0"}),
    Case(clock_source.check, "ok", "tsc", {f"{CLOCK}current_clocksource": "tsc"}),
    Case(
        clock_source.check,
        "problem",
        "hpet",
        {f"{CLOCK}current_clocksource": "hpet", f"{CLOCK}available_clocksource": "hpet tsc"},
    ),
    Case(clock_source.check, "problem", "acpi_pm", {f"{CLOCK}current_clocksource": "acpi_pm"}),
    Case(clock_source.check, "unknown", "sundial", {f"{CLOCK}current_clocksource": "sundial"}),
    Case(clock_source.check, "unknown", "not told"),
    Case(isolated_cores.check, "ok", "no PU", {f"{CPU}/isolated": ""}),
    Case(isolated_cores.check, "advice", "PU 1", {f"{CPU}/isolated": "1-7"}),
    Case(isolated_cores.check, "unknown", "not told"),
    Case(numa_nodes.check, "ok", "4 NUMA nodes with cores in 2 packages: sub-", machine=server()),
    Case(numa_nodes.check, "ok", "1 of memory only", machine=with_memory_only_node()),
    Case(numa_nodes.check, "problem", "NUMA node 1", machine=with_memoryless_node()),
    Case(
        numa_nodes.check,
        "advice",
        "node 0 64.0 GiB, node 1 32.0 GiB",
        machine=replace(
            build([2, 2]),
            numa_nodes=tuple(
                replace(node, memory_bytes=64 * GIB >> node.os_index)
                for node in build([2, 2]).numa_nodes
            ),
        ),
    ),
    Case(numa_nodes.check, "unknown", "not told", machine=without_nodes()),
    Case(numa_nodes.check, "unknown", "not told", machine=build([2, 2], memory_bytes=None)),
    Case(numa_balancing.check, "ok", "nothing to balance"),
    Case(
        numa_balancing.check, "ok", "is off", {"proc/sys/kernel/numa_balancing": "0"}, server()
    ),
    Case(
        numa_balancing.check, "ok", "only tiers", {"proc/sys/kernel/numa_balancing": "2"}, server()
    ),
    Case(
        numa_balancing.check, "advice", "is on", {"proc/sys/kernel/numa_balancing": "3"}, server()
    ),
    Case(numa_balancing.check, "unknown", "not told", machine=server()),
    Case(huge_pages.check, "ok", "everybody", {HUGE: "[always] madvise never"}),
    Case(huge_pages.check, "ok", "those who ask", {HUGE: "always [madvise] never"}),
    Case(huge_pages.check, "advice", "nobody", {HUGE: "always madvise [never]"}),
    Case(huge_pages.check, "unknown", "inherit", {HUGE: "[inherit]"}),
    Case(huge_pages.check, "unknown", "not told", {HUGE: "always"}),
    Case(swap.check, "ok", "no swap", swapped(0, 0)),
    Case(swap.check, "ok", "100 MiB", swapped(8 << 20, (8 << 20) - 102400)),
    Case(swap.check, "advice", "3.0 GiB", swapped(8 << 20, 5 << 20)),
    Case(swap.check, "unknown", "not told", {"proc/meminfo": "MemTotal: 9 kB"}),
    Case(overcommit.check, "ok", "freely", {"proc/sys/vm/overcommit_memory": "1"}),
    Case(overcommit.check, "advice", "no more", {"proc/sys/vm/overcommit_memory": "2"}),
    Case(overcommit.check, "unknown", "not told"),
    Case(memory_modules.check, "ok", "modules in 2 of 3 slots: 2 of 64 GiB, at 4800 MT/s",
         dmi(dimm(65536), dimm(0), dimm(65536)), build([2, 2])),
    Case(memory_modules.check, "advice", "1 of them could do 5600 MT/s",
         dmi(dimm(65536, rated=5600), dimm(65536))),
    Case(memory_modules.check, "advice", "1 of 32 GiB and 1 of 16 GiB",
         dmi(dimm(32768), dimm(16384))),
    Case(memory_modules.check, "advice", "in 2 packages", dmi(dimm(16384)), build([2, 2])),
    Case(memory_modules.check, "ok", "1 of 16 GiB", dmi(dimm(16384, 0, 0xFFFF))),
    Case(memory_modules.check, "unknown", "not told", dmi(dimm(0))),
    Case(memory_modules.check, "unknown", "not told", {DMI: b"\x11\x99"}),
    Case(allowed.check, "ok", "all PUs", machine=server()),
    Case(allowed.check, "advice", "32 of 64 PUs (not 32-63)", machine=replace(
        server(), pus=replace(server().pus, usable=CpuSet(range(32))))),
    Case(allowed.check, "problem", "NUMA node 1, but not", machine=narrowed()),
    Case(allowed.check, "unknown", "not told", machine=recorded_status(server())),
    Case(allowed.check, "problem", "NUMA node 1", machine=recorded_status(narrowed())),
    Case(group_limits.check, "ok", "no control group", grouped()),
    Case(group_limits.check, "problem", "the time of 1.5 cores is all there is for 2 PUs",
         grouped(**{"cpu.max": "150000 100000", "memory.max": "max"})),
    Case(group_limits.check, "advice", "16.0 GiB of 64.0 GiB",
         grouped(**{"cpu.max": "900000 100000", "memory.max": str(16 * GIB)})),
    Case(group_limits.check, "unknown", "not told"),
    Case(memory_policy.check, "ok", "may be bound"),
    Case(memory_policy.check, "problem", "Operation not permitted",
         answers=replace(YES, memory_policy=errno.EPERM)),
    Case(memory_policy.check, "unknown", "not told", answers=None),
    Case(delegation.check, "ok", "can be limited"),
    Case(delegation.check, "advice", "not ours",
         answers=replace(YES, limits_refused=(("it is not ours", "run it in a scope"),))),
    Case(delegation.check, "unknown", "not told", answers=None),
    Case(logout.check, "ok", "outlive", {"proc/self/cgroup": SESSION}),
    Case(logout.check, "problem", "end at its logout", {
        "proc/self/cgroup": SESSION, "etc/systemd/logind.conf": "KillUserProcesses=yes"}),
    Case(logout.check, "unknown", "not told", {"proc/self/cgroup": SESSION}, answers=None),
    Case(shared_memory.check, "ok", "half", shm("rw")),
    Case(shared_memory.check, "ok", "8,192 MiB", shm("rw,size=8g,inode64")),
    Case(shared_memory.check, "problem", "64 MiB", shm("rw,size=65536k")),
    Case(shared_memory.check, "advice", "512 MiB", shm("rw,size=524288k")),
    Case(shared_memory.check, "problem", "nothing is mounted", {"proc/self/mountinfo": PROC}),
    Case(shared_memory.check, "unknown", "not told", grouped()),
    Case(gpu_driver.check, "ok", "GPU 0-1: driven by xe", machine=carded(2)),
    Case(gpu_driver.check, "problem", "GPU 0: no driver (Arc A770)",
         files={f"{CARD}/uevent": "PCI_CLASS=30000"}, machine=carded(driver=None)),
    Case(gpu_driver.check, "unknown", "its driver is not told", machine=carded(driver=None)),
    Case(gpu_driver.check, "problem", "held by vfio-pci", machine=carded(driver="vfio-pci")),
    Case(gpu_access.check, "ok", "may be opened", machine=carded()),
    Case(gpu_access.check, "problem", "may not be opened by ann", machine=carded(may_open=False)),
    Case(gpu_access.check, "problem", "not in /dev/dri",
         machine=carded(may_open=None)),
    Case(gpu_access.check, "unknown", "not recorded",
         machine=replace(carded(may_open=None), live=False)),
    Case(gpu_access.check, "unknown", "no render node", machine=carded(drm_render=None)),
    Case(gpu_bar.check, "ok", "all of its memory", machine=carded()),
    Case(gpu_bar.check, "problem", "shows 256 MiB of 16 GiB to the processor, below 4 GiB",
         machine=carded(bar_bytes=256 << 20, bar_address=0x8000_0000)),
    Case(gpu_bar.check, "advice", "1024 MiB of 16 GiB", machine=carded(bar_bytes=1 << 30)),
    Case(gpu_bar.check, "problem", "256 MiB to", machine=carded(
        bar_bytes=256 << 20, memory_bytes=None)),
    Case(gpu_bar.check, "ok", "all", machine=carded(
        bar_bytes=32 * GIB, memory_bytes=None, bar_sizes_bytes=(256 << 20, 32 * GIB))),
    Case(gpu_bar.check, "unknown", "not told", machine=carded(memory_bytes=None)),
    Case(gpu_bar.check, "unknown", "does not tell", machine=carded(bar_bytes=None)),
    Case(gpu_link.check, "ok", "16 GT/s x16", machine=carded()),
    Case(gpu_link.check, "advice", "4 of 16 lanes", machine=carded(link_width=4)),
    Case(gpu_link.check, "advice", "could be at 32", machine=carded(link_best_gt_s=32.0)),
    Case(gpu_link.check, "unknown", "does not tell", machine=carded(link_gt_s=None)),
    Case(gpu_node.check, "ok", "GPU 0: near NUMA node 0", machine=carded(nodes=2)),
    Case(gpu_node.check, "advice", "does not say", {f"{CARD}/numa_node": "-1"},
         carded(nodes=2, numa_node=None)),
    Case(gpu_node.check, "unknown", "not told", machine=carded(nodes=2, numa_node=None)),
    Case(gpu_clock.check, "ok", "2400 MHz",
         {f"{XE}/act_freq": "0", f"{XE}/max_freq": "2400", f"{XE}/rp0_freq": "2400"}, carded()),
    Case(gpu_clock.check, "advice", "held to 1200 of 2400 MHz",
         {f"{XE}/act_freq": "0", f"{XE}/max_freq": "1200", f"{XE}/rp0_freq": "2400"}, carded()),
    Case(gpu_clock.check, "advice", "held to 1200 of 2450 MHz",
         {f"{I915}/rps_max_freq_mhz": "1200", f"{I915}/rps_RP0_freq_mhz": "2450"}, carded()),
    Case(gpu_clock.check, "unknown", "does not tell", machine=carded()),
    Case(gpu_clock.check, "unknown", "sleeps", {f"{CARD}/power/runtime_status": "suspended"},
         carded()),
    Case(gpu_throttle.check, "ok", "not throttled",
         {f"{XE}/throttle/status": "0", f"{XE}/throttle/reason_pl1": "0"}, carded()),
    Case(gpu_throttle.check, "advice", "throttled by thermal",
         {f"{XE}/throttle/status": "1", f"{XE}/throttle/reason_thermal": "1"}, carded()),
    Case(gpu_throttle.check, "unknown", "does not tell", machine=carded()),
]  # fmt: skip


def host_of(case: Case, folder: Path) -> Host:
    tree = SysfsTree(folder)
    for name, content in case.files.items():
        tree.file(name, content)
    return Host(tree.root, case.machine, case.answers)
