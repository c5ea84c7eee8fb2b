"""What the hardware did during a block: clocks, heat, throttling and energy, where it tells."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from statistics import fmean

from engine.bench.values import Progress
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.status import GpuStatus
from engine.host.root import HostRoot

CPU = "sys/devices/system/cpu"
HWMON = "sys/class/hwmon"
POWERCAP = "sys/class/powercap"
CLOCKS_READ = 16
"""PUs whose clock is read, evenly spread: on a large server each reading costs the client."""
EVERY_S = 0.9
CPU_SENSORS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal"})

GpuReadings = Callable[[], Awaitable[Sequence[GpuStatus]]]


class HardwareWatch:
    """Of one arm's PUs and GPUs, while a block is being measured; `on_progress` drives it."""

    def __init__(
        self,
        pus: CpuSet,
        packages: frozenset[int],
        gpus: Sequence[int] = (),
        *,
        read_gpus: GpuReadings | None = None,
        root: HostRoot | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root = root or HostRoot()
        self._clock = clock
        self._pus = list(pus)
        self._watched = spread(self._pus, CLOCKS_READ)
        self._gpus = tuple(gpus)
        self._read_gpus = read_gpus
        self._task: asyncio.Task[None] | None = None
        self._zones = [
            zone
            for zone in self._root.names(POWERCAP)
            if re.fullmatch(r"intel-rapl:\d+", zone)
            and self._root.text(f"{POWERCAP}/{zone}/name") in {f"package-{n}" for n in packages}
        ]
        self._mhz: list[float] = []
        self._heat: list[float] = []
        self._gpu_seen: dict[int, list[GpuStatus]] = {gpu: [] for gpu in self._gpus}
        self._began_at: float | None = None
        self._looked_at = 0.0
        self._throttles: tuple[int | None, int | None] = (None, None)
        self._joules = 0.0
        self._energy: list[int] | None = None

    def on_progress(self, progress: Progress) -> None:
        """Called by the load generator; only what happens while it measures counts."""
        if progress.phase != "measuring":
            return
        now = self._clock()
        if self._began_at is None:
            self._began_at = now
            self._throttles = (self._throttled(), None)
            self._energy = self._microjoules()
            if self._gpus and self._read_gpus is not None:
                self._task = asyncio.get_running_loop().create_task(self._follow_gpus())
        elif now - self._looked_at < EVERY_S:
            return
        self._look(now)

    async def finish(self) -> None:
        """The last readings; call it once the load is over."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._began_at is not None:
            self._look(self._clock())
            self._throttles = (self._throttles[0], self._throttled())

    # What came of it

    @property
    def clocks_mhz(self) -> dict[str, float]:
        """Means: {"cpu": 3400.0, "gpu:0": 2400.0}."""
        found = {"cpu": fmean(self._mhz)} if self._mhz else {}
        for gpu, seen in self._gpu_seen.items():
            mhz = [one.frequency_mhz for one in seen if one.frequency_mhz]
            if mhz:
                found[f"gpu:{gpu}"] = fmean(mhz)
        return found

    @property
    def temperature_c(self) -> float | None:
        """The hottest reading."""
        gpus = [one.temperature_c for seen in self._gpu_seen.values() for one in seen]
        return max([*self._heat, *(one for one in gpus if one is not None)], default=None)

    @property
    def throttled(self) -> bool | None:
        """None: these PUs do not count it."""
        before, after = self._throttles
        return None if before is None or after is None else after > before

    @property
    def watts(self) -> float | None:
        """Of the packages and all GPUs of the arm; None where one of them does not tell."""
        elapsed_s = 0.0 if self._began_at is None else self._looked_at - self._began_at
        if self._energy is None or elapsed_s <= 0:
            return None
        total = self._joules / elapsed_s
        for seen in self._gpu_seen.values():
            power = [one.power_w for one in seen if one.power_w is not None]
            if not power:
                return None
            total += fmean(power)
        return total

    # Readings

    def _look(self, now: float) -> None:
        self._looked_at = now
        khz = [
            int(text)
            for pu in self._watched
            if (text := self._root.text(f"{CPU}/cpu{pu}/cpufreq/scaling_cur_freq"))
            and text.isdecimal()
        ]
        if khz:
            self._mhz.append(fmean(khz) / 1e3)
        self._heat += self._temperatures()
        energy = self._microjoules()
        if energy is None or self._energy is None:
            self._energy = None
            return
        for zone, before, after in zip(self._zones, self._energy, energy, strict=True):
            if after < before:  # The counter has wrapped around.
                after += int(self._root.text(f"{POWERCAP}/{zone}/max_energy_range_uj") or 0)
            self._joules += max(0, after - before) / 1e6
        self._energy = energy

    def _microjoules(self) -> list[int] | None:
        """/sys/class/powercap/intel-rapl:*/energy_uj; None without them, or only for root."""
        texts = [self._root.text(f"{POWERCAP}/{zone}/energy_uj") for zone in self._zones]
        found = [int(text) for text in texts if text and text.isdecimal()]
        return found if found and len(found) == len(self._zones) else None

    def _throttled(self) -> int | None:
        """Sum of /sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count."""
        counts = [
            int(text)
            for pu in self._pus
            for kind in ("core", "package")
            if (text := self._root.text(f"{CPU}/cpu{pu}/thermal_throttle/{kind}_throttle_count"))
            and text.isdecimal()
        ]
        return sum(counts) if counts else None

    def _temperatures(self) -> list[float]:
        found = []
        for chip in self._root.names(HWMON):
            if self._root.text(f"{HWMON}/{chip}/name") not in CPU_SENSORS:
                continue
            for name in self._root.names(f"{HWMON}/{chip}"):
                if re.fullmatch(r"temp\d+_input", name):
                    text = self._root.text(f"{HWMON}/{chip}/{name}")
                    if text and text.isdecimal():
                        found.append(int(text) / 1e3)
        return found

    async def _follow_gpus(self) -> None:
        while self._read_gpus is not None:
            with suppress(ControlError):
                for one in await self._read_gpus():
                    if one.index in self._gpu_seen:
                        self._gpu_seen[one.index].append(one)
            await asyncio.sleep(1)


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most so many of them, evenly spread."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]
