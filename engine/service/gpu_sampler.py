"""GPUs at one moment, and what each instance takes of them: rates need the reading before."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from engine.core.status import GpuStatus, GpuUse
from engine.core.topology import Gpu
from engine.host.drm_fdinfo import DrmClient, busy_share, parse_fdinfo
from engine.host.gpu_holders import gpu_files, nodes_of
from engine.host.gpu_sensors import GpuReading, GpuSensors
from engine.host.process import open_files, read_stat
from engine.host.root import HostRoot

FILES_EVERY_S = 10.0
"""How often it is looked up which files of an instance's processes are GPUs."""
STRANGERS_EVERY_S = 30.0
"""The same for all other processes, and only while somebody watches: all of /proc is searched."""
UNWATCHED_EVERY_S = 60.0
"""Of everything here while nobody watches: reading a card's sensors keeps it from sleeping."""

Members = Mapping[str, Iterable[int]]
"""Instance -> the pids of its processes."""
Key = tuple[int, str]
"""GPU and client; several files, also of several processes, may be one client."""


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One moment."""

    gpus: tuple[GpuStatus, ...] = ()
    uses: dict[str, tuple[GpuUse, ...]] = field(default_factory=dict)
    """By instance."""


@dataclass
class _Files:
    """Which files of one process are GPUs."""

    at: float
    gpus: dict[str, int]
    """Descriptor -> GPU."""


class GpuSampler:
    """Reads fdinfo of those processes that have a GPU open, and the sensors of each card."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._gpus: tuple[Gpu, ...] = ()
        self._sensors: list[GpuSensors] = []
        self._nodes: dict[str, int] = {}
        self._files: dict[int, _Files] = {}
        self._others: tuple[int, ...] = ()
        """Processes that are not ours and have a GPU open."""
        self._others_at: float | None = None
        self._sees_all = False
        """Whether no process's files were refused when they were looked for."""
        self._clients: dict[Key, DrmClient] = {}
        self._readings: dict[int, GpuReading] = {}
        self._at: float | None = None
        self._sample = GpuSample()

    def sample(
        self, now: float, gpus: Sequence[Gpu], members: Members, *, watched: bool
    ) -> GpuSample:
        """Read what is due; otherwise the sample before stands."""
        if tuple(gpus) != self._gpus:
            self._take_up(tuple(gpus))
        pause_s = 0.0 if watched else UNWATCHED_EVERY_S
        if not self._gpus or (self._at is not None and now - self._at < pause_s):
            return self._sample
        elapsed_s = None if self._at is None else now - self._at
        self._at = now
        if watched:
            self._look_for_others(now, members)
        ours = {name: self._read(now, pids, FILES_EVERY_S) for name, pids in members.items()}
        # Which file is which stays as it was found: their next search comes soon enough.
        theirs = self._read(now, self._others, STRANGERS_EVERY_S * 2)
        clients = dict(theirs)
        for found in ours.values():
            clients.update(found)
        shares = self._shares(clients, elapsed_s)
        self._clients = clients
        self._sample = GpuSample(
            tuple(self._status(one, clients, shares, elapsed_s) for one in self._sensors),
            {name: self._uses(found, shares) for name, found in ours.items()},
        )
        return self._sample

    def _take_up(self, gpus: tuple[Gpu, ...]) -> None:
        self._gpus, self._nodes = gpus, nodes_of(gpus)
        self._sensors = [GpuSensors(self._root, gpu) for gpu in gpus]
        self._files.clear()
        self._clients, self._readings, self._at = {}, {}, None
        self._others, self._others_at, self._sees_all = (), None, False
        self._sample = GpuSample()

    # Clients

    def _look_for_others(self, now: float, members: Members) -> None:
        """All processes that have a GPU open (/proc/PID/fd), beside the instances' own."""
        if self._others_at is not None and now - self._others_at < STRANGERS_EVERY_S:
            return
        self._others_at = now
        ours = {pid for pids in members.values() for pid in pids}
        self._sees_all = True
        every = (int(name) for name in self._root.names("proc") if name.isdigit())
        self._others = tuple(pid for pid in every if pid not in ours and self._look(now, pid))
        kept = ours.union(self._others)
        self._files = {pid: files for pid, files in self._files.items() if pid in kept}

    def _look(self, now: float, pid: int) -> dict[str, int]:
        files = open_files(self._root, pid)
        if files is None:
            # One that has just ended hides nothing.
            self._sees_all = self._sees_all and read_stat(self._root, pid) is None
        found = gpu_files(files or {}, self._nodes)
        self._files[pid] = _Files(now, found)
        return found

    def _read(self, now: float, pids: Iterable[int], every_s: float) -> dict[Key, DrmClient]:
        clients: dict[Key, DrmClient] = {}
        for pid in pids:
            files = self._files.get(pid)
            if files is None or now - files.at >= every_s:
                self._look(now, pid)
            known = self._files[pid].gpus
            seen: set[Key] = set()
            for descriptor, gpu in list(known.items()):
                text = self._root.text(f"proc/{pid}/fdinfo/{descriptor}")
                if not text or not (client := parse_fdinfo(text)):
                    continue
                key = gpu, client.id or f"{pid}/{descriptor}"
                if key in seen:
                    del known[descriptor]  # one file tells all of a client until the next search
                seen.add(key)
                clients[key] = client
        return clients

    def _shares(
        self, clients: Mapping[Key, DrmClient], elapsed_s: float | None
    ) -> dict[Key, dict[str, float]]:
        """What each client kept busy, by class; without those that are new."""
        shares: dict[Key, dict[str, float]] = {}
        for key, now in clients.items():
            before = self._clients.get(key)
            if before is None or elapsed_s is None or not now.engines:
                continue
            told = {
                name: busy_share(before.engines[name], time, elapsed_s)
                for name, time in now.engines.items()
                if name in before.engines
            }
            known = {name: share for name, share in told.items() if share is not None}
            if known:
                shares[key] = known
        return shares

    # What is told of them

    def _uses(
        self, clients: Mapping[Key, DrmClient], shares: Mapping[Key, dict[str, float]]
    ) -> tuple[GpuUse, ...]:
        uses = []
        for gpu in sorted({key[0] for key in clients}):
            mine = {key: client for key, client in clients.items() if key[0] == gpu}
            sizes = [one.card_bytes for one in mine.values() if one.card_bytes is not None]
            engines = _together(shares[key] for key in mine if key in shares)
            busy = max(engines.values(), default=None)
            whys = []
            if not sizes:
                whys.append("its driver tells no memory on the card")
            if busy is None:
                told = any(client.engines for client in mine.values())
                whys.append(
                    "busy needs a second sample" if told else "its driver tells no busy time"
                )
            uses.append(GpuUse(gpu, sum(sizes) if sizes else None, busy, engines, "; ".join(whys)))
        return tuple(uses)

    def _status(
        self,
        sensors: GpuSensors,
        clients: Mapping[Key, DrmClient],
        shares: Mapping[Key, dict[str, float]],
        elapsed_s: float | None,
    ) -> GpuStatus:
        gpu, reading = sensors.gpu, sensors.read()
        before = self._readings.get(gpu.index)
        self._readings[gpu.index] = reading
        unknown, notes = dict(reading.unknown), {}
        power = reading.power_w
        if power is None and "power_w" not in unknown:
            power, of = _power(before, reading, elapsed_s)
            if power is None:
                first = before is None or not before.energy_uj
                unknown["power_w"] = (
                    "needs a second sample" if first else "its energy counters stand still"
                )
            elif of == "pkg":
                notes["power_w"] = "of the chip, without memory and fans"
        here = {key: client for key, client in clients.items() if key[0] == gpu.index}
        used, note = self._memory(gpu, reading, here, unknown)
        if used is not None and note:
            notes["memory_used_bytes"] = note
        engines = _together(shares[key] for key in here if key in shares)
        busy = max(engines.values(), default=None)
        if busy is None and not here and self._sees_all:
            busy = 0.0  # nobody has it open
        elif busy is None:
            unknown["busy"] = self._why_not_busy(here)
        elif not self._sees_all:
            notes["busy"] = "of the processes that we may look at"
        return GpuStatus(
            index=gpu.index,
            busy=busy,
            memory_used_bytes=used,
            power_w=power,
            temperature_c=reading.temperature_c,
            frequency_mhz=reading.frequency_mhz,
            memory_total_bytes=gpu.memory_bytes,
            engines=engines,
            throttle=reading.throttle,
            unknown=unknown,
            notes=notes,
        )

    def _memory(
        self,
        gpu: Gpu,
        reading: GpuReading,
        clients: Mapping[Key, DrmClient],
        unknown: dict[str, str],
    ) -> tuple[int | None, str]:
        """Used bytes and what they leave out. The driver's own word, else the clients' sum."""
        if reading.memory_used_bytes is not None:
            return reading.memory_used_bytes, ""
        sizes = [one.card_bytes for one in clients.values() if one.card_bytes is not None]
        used = sum(sizes)
        if gpu.integrated:
            why = "it has no memory of its own"
        elif not clients and self._sees_all:
            return 0, "what the driver itself keeps is not counted"
        elif not clients:
            why = _NOBODY
        elif not sizes:
            why = f"{gpu.driver or 'its driver'} does not tell what its clients hold"
        elif gpu.memory_bytes is not None and used > gpu.memory_bytes:
            why = "its clients together tell more than it has, as each counts what they share"
        else:
            return used, "" if self._sees_all else "of the processes that we may look at"
        unknown["memory_used_bytes"] = why
        return None, ""

    def _why_not_busy(self, clients: Mapping[Key, DrmClient]) -> str:
        if not clients:
            return _NOBODY
        if any(client.engines for client in clients.values()):
            return "needs a second sample"
        return "its driver does not tell how long its clients kept it busy"


_NOBODY = "no process that we may look at has it open; those of other users are not for us to see"


def _together(shares: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Of several clients, by class; engines of one class that are shared are full at 1."""
    whole: dict[str, float] = {}
    for one in shares:
        for name, share in one.items():
            whole[name] = min(1.0, whole.get(name, 0.0) + share)
    return whole


def _power(
    before: GpuReading | None, after: GpuReading, elapsed_s: float | None
) -> tuple[float | None, str]:
    """Watts from the first energy counter that moves, and which one it is."""
    if before is None or not elapsed_s or elapsed_s <= 0:
        return None, ""
    earlier = dict(before.energy_uj)
    for label, count in after.energy_uj:
        if label in earlier and count > earlier[label]:
            return (count - earlier[label]) / 1e6 / elapsed_s, label
    return None, ""
