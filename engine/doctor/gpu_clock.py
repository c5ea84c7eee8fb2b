"""Whether somebody has set a card's highest clock below what it can do.

i915: rps_max_freq_mhz against rps_RP0_freq_mhz (drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c); xe:
freq0/max_freq against freq0/rp0_freq (drivers/gpu/drm/xe/xe_gt_freq.c).
"""

from collections.abc import Iterator

from engine.core.checks import Check
from engine.core.topology import Gpu
from engine.doctor.cards import Finding, folder, together
from engine.doctor.host import ABSENT, Host, write
from engine.host.gpu_sensors import ASLEEP, GpuSensors

ID = "gpu-clock"


def check(host: Host) -> Check | None:
    """The limit of each part that computes."""
    return together(ID, (_finding(host, gpu) for gpu in host.cards))


def _finding(host: Host, gpu: Gpu) -> Finding:
    if asleep(host, gpu):
        name = f"{folder(gpu)}/power/runtime_status"
        return Finding(gpu, "unknown", "sleeps", host.seen(name), ASLEEP)
    pairs = list(_limits(GpuSensors(host.root, gpu)))
    told = [(host.number(low), host.number(high), low, high) for low, high in pairs]
    known = [(limit, most, low, high) for limit, most, low, high in told if limit and most]
    evidence = host.seen(*(name for pair in pairs for name in pair))
    if not known or len(known) < len(told):
        return Finding(gpu, "unknown", "does not tell its highest clock", evidence, ABSENT)
    held = [(limit, most, low) for limit, most, low, _ in known if limit < most]
    if not held:
        return Finding(gpu, "ok", f"may run at {known[0][1]} MHz", evidence)
    limit, most, _ = held[0]
    return Finding(
        gpu,
        "advice",
        f"held to {limit} of {most} MHz",
        evidence,
        "prompts are computed more slowly in the same proportion",
        "; ".join(write(most, low) for _, most, low in held) + " (until the next boot)",
        "; ".join(write(limit, low) for limit, _, low in held),
        ("root",),
    )


def asleep(host: Host, gpu: Gpu) -> bool:
    """Whether reading its sensors would wake it."""
    return host.text(f"{folder(gpu)}/power/runtime_status") == "suspended"


def _limits(sensors: GpuSensors) -> Iterator[tuple[str, str]]:
    """The files of limit and best, beside those of the clock now."""
    for name in sensors.clock_files:
        place, _, file = name.rpartition("/")
        if file == "act_freq":
            yield f"{place}/max_freq", f"{place}/rp0_freq"
        else:
            yield f"{place}/{file.replace('act', 'max')}", f"{place}/{file.replace('act', 'RP0')}"
