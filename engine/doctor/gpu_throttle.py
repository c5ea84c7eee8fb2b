"""Whether a card's clock is held down right now, and by what.

i915: throttle_reason_*; xe: freq0/throttle/ (drivers/gpu/drm/xe/xe_gt_throttle.c): power limits
(pl1, pl2, pl4), heat (thermal, prochot, ratl), and the supply (vr_thermalert, vr_tdc).
"""

from engine.core.checks import Check
from engine.core.topology import Gpu
from engine.doctor.cards import Finding, together
from engine.doctor.host import Host
from engine.host.gpu_sensors import GpuSensors

ID = "gpu-throttle"
_HOT = ("thermal", "prochot", "ratl", "vr_thermalert")


def check(host: Host) -> Check | None:
    """As the sensors tell it."""
    return together(ID, (_finding(host, gpu) for gpu in host.cards))


def _finding(host: Host, gpu: Gpu) -> Finding:
    sensors = GpuSensors(host.root, gpu)
    reading = sensors.read()
    if reading.throttle is None:
        why = reading.unknown.get("throttle", "")
        return Finding(gpu, "unknown", "does not tell whether it is throttled", (), why)
    evidence = host.seen(*sensors.throttle_files)
    if not reading.throttle:
        return Finding(gpu, "ok", "not throttled", evidence)
    reasons = ", ".join(reading.throttle)
    hot = any(word.startswith(_HOT) for word in reading.throttle)
    return Finding(
        gpu,
        "advice",
        f"throttled by {reasons}",
        evidence,
        "figures that are taken now are lower than the card's, and two runs cannot be compared",
        "see to its cooling (fans, airflow between cards), then look again"
        if hot
        else "at a power limit under full load this is as built; else raise power1_max or "
        "power1_cap of its hwmon, if supply and cooling allow it",
    )
