"""A GPU's clock, heat, energy, throttling and used memory, from hwmon, drm sysfs and debugfs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.core.topology import Gpu
from engine.host.root import HostRoot

_DRIVERS = frozenset({"i915", "xe", "amdgpu"})
"""Names of the hwmon node of a whole card; `i915_gt1` is a part of one."""
_HEAT = ("pkg", "edge")
"""Labels of the temperature that is the chip's own, best first; i915 has just one, unlabelled."""
_ENERGY = ("card", "pkg")
"""Which one counts differs: either may be absent or stand still."""
ASLEEP = "it sleeps (runtime power management), and reading would wake it"


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One moment; None is unknown, and `unknown` says why under the field's name."""

    energy_uj: tuple[tuple[str, int], ...] = ()
    """Microjoules counted, by what is counted (card, pkg, or nothing said), the best first."""
    power_w: float | None = None
    """Where a driver tells it outright."""
    temperature_c: float | None = None
    frequency_mhz: float | None = None
    """Of the compute engines now; 0 while they sleep."""
    throttle: tuple[str, ...] | None = None
    """Why the clock is held down: pl1, thermal…; empty where it is not."""
    memory_used_bytes: int | None = None
    """Of the whole card, by the driver's own word."""
    unknown: dict[str, str] = field(default_factory=dict)


class GpuSensors:
    """Finds out once which files a card has, and reads those."""

    def __init__(self, root: HostRoot, gpu: Gpu) -> None:
        self._root = root
        self.gpu = gpu
        self._folder = f"sys/bus/pci/devices/{gpu.pci}"
        self._hwmon = self._find_hwmon()
        names = root.names(self._hwmon) if self._hwmon else ()
        self._energy = self._labelled(names, "energy", _ENERGY)
        self._heat = self._labelled(names, "temp", _HEAT)[:1]
        self._power = [name for name in ("power1_average", "power1_input") if name in names]
        self._clocks, self._throttles = self._find_clocks()
        self._memory = self._find_memory()

    @property
    def clock_files(self) -> tuple[str, ...]:
        """Of the clock now, one for each part that computes."""
        return tuple(self._clocks)

    @property
    def throttle_files(self) -> tuple[str, ...]:
        """Each says whether its part's clock is held down."""
        return tuple(status for status, _ in self._throttles)

    def read(self) -> GpuReading:
        """Now."""
        if self._root.text(f"{self._folder}/power/runtime_status") == "suspended":
            keys = ("power_w", "temperature_c", "frequency_mhz", "throttle")
            return GpuReading(unknown=dict.fromkeys(keys, ASLEEP))
        unknown: dict[str, str] = {}
        energy = [(label, self._number(name)) for label, name in self._energy]
        told = tuple((label, count) for label, count in energy if count is not None)
        watts = [self._number(f"{self._hwmon}/{name}") for name in self._power]
        power = next((one / 1e6 for one in watts if one is not None), None)
        heat = [self._number(name) for _, name in self._heat]
        temperature = next((one / 1e3 for one in heat if one is not None), None)
        clocks = [one for name in self._clocks if (one := self._number(name)) is not None]
        throttle = self._throttle()
        driver = self.gpu.driver or "no driver"
        if not told and power is None:
            unknown["power_w"] = f"{driver} has no energy counter for it"
        if temperature is None:
            unknown["temperature_c"] = f"{driver} tells no temperature"
        if not clocks:
            unknown["frequency_mhz"] = f"{driver} tells no clock in sysfs"
        if throttle is None:
            unknown["throttle"] = f"{driver} does not tell what holds its clock down"
        return GpuReading(
            told,
            power,
            temperature,
            float(max(clocks)) if clocks else None,
            throttle,
            self._used(),
            unknown,
        )

    def _throttle(self) -> tuple[str, ...] | None:
        """`throttle/status` and `reason_*` of xe, `throttle_reason_*` of i915."""
        if not self._throttles:
            return None
        held: dict[str, None] = {}
        is_known = False
        for status, reasons in self._throttles:
            now = self._number(status)
            is_known = is_known or now is not None
            if not now:
                continue
            found = [name for name, file in reasons if self._number(file)]
            held.update(dict.fromkeys(found or ["a reason that is not told"]))
        return tuple(held) if is_known else None

    def _used(self) -> int | None:
        """`usage:` of debugfs `vram_mm`, each tile's own; 0 pages of a region are a value."""
        used = []
        for name in self._memory:
            text = self._root.text(name) or ""
            if name.endswith("_used"):
                used.append(int(text) if text.isdecimal() else None)
                continue
            usage = re.search(r"^\s*usage:\s*([0-9]{1,15})$", text, re.MULTILINE)
            used.append(int(usage.group(1)) if usage else None)
        known = [one for one in used if one is not None]
        return sum(known) if known and len(known) == len(used) else None

    # Which files there are

    def _find_hwmon(self) -> str:
        for chip in self._root.names(f"{self._folder}/hwmon"):
            folder = f"{self._folder}/hwmon/{chip}"
            if self._root.text(f"{folder}/name") in _DRIVERS:
                return folder
        return ""

    def _labelled(
        self, names: Sequence[str], kind: str, order: tuple[str, ...]
    ) -> list[tuple[str, str]]:
        """(label, file) of the inputs with such a label or with none, in that order."""
        found = []
        for name in names:
            match = re.fullmatch(rf"{kind}([0-9]+)_input", name)
            if not match:
                continue
            label = self._root.text(f"{self._hwmon}/{kind}{match.group(1)}_label") or ""
            if not label or label in order:
                rank = order.index(label) if label else len(order)
                found.append((rank, label, f"{self._hwmon}/{name}"))
        return [(label, name) for _, label, name in sorted(found)]

    def _find_clocks(self) -> tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]:
        """Clocks of the graphics parts, not of media's; and each part's throttle files."""
        clocks, throttles = [], []
        for tile in self._numbered(self._folder, "tile"):
            for gt in self._numbered(tile, "gt"):
                if (self._root.text(f"{gt}/gtidle/name") or "").endswith("-mc"):
                    continue
                clocks.append(f"{gt}/freq0/act_freq")
                throttles.append(self._reasons(f"{gt}/freq0/throttle", "status", "reason_"))
        card = f"{self._folder}/drm/{self.gpu.drm_card}"
        for gt in self._numbered(f"{card}/gt", "gt") if not clocks else ():
            clocks.append(f"{gt}/rps_act_freq_mhz")
            throttles.append(self._reasons(gt, "throttle_reason_status", "throttle_reason_"))
        if not clocks:
            clocks = [f"{card}/gt_act_freq_mhz"]
        return clocks, [one for one in throttles if one[1]]

    def _reasons(self, folder: str, status: str, start: str) -> tuple[str, list[tuple[str, str]]]:
        names = [
            name for name in self._root.names(folder) if name.startswith(start) and name != status
        ]
        return f"{folder}/{status}", [(name[len(start) :], f"{folder}/{name}") for name in names]

    def _find_memory(self) -> list[str]:
        """Only root may look into debugfs; amdgpu's stands in sysfs."""
        debug = f"sys/kernel/debug/dri/{self.gpu.pci}"
        found = [
            f"{folder}/{name}"
            for folder in [debug, *self._numbered(debug, "tile")]
            for name in self._root.names(folder)
            if re.fullmatch(r"vram[0-9]*_mm", name)
        ]
        own = f"{self._folder}/mem_info_vram_used"
        return found or ([own] if self._root.text(own) else [])

    def _numbered(self, folder: str, name: str) -> list[str]:
        return [
            f"{folder}/{each}"
            for each in self._root.names(folder)
            if re.fullmatch(rf"{name}[0-9]+", each)
        ]

    def _number(self, name: str) -> int | None:
        text = self._root.text(name) or ""
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
