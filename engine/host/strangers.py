"""Running processes that are not ours and hold PUs or GPUs: pinned engines that others started."""

import re
from collections.abc import Collection
from posixpath import normpath

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.strangers import GPU_BYTES, Stranger, is_load
from engine.core.topology import Machine
from engine.host.device_root import DeviceRoot
from engine.host.lists import numbered, read_list
from engine.host.process import TICKS_PER_S, ProcessStat, family, read_all, thread_affinities
from engine.host.root import HostRoot

_LIGHT_BYTES, _LIGHT_S = 64 << 20, 1.0
"""A process with less memory and less CPU time is nobody's engine: nothing more is read of it."""
_MOST_THREADS, _MOST_READ = 1024, 16_384
"""Of one process and of all together: where there are more, only the first thread is asked."""
_MOST_FILES = 4096
"""Open files of one process."""
_INITS = ("systemd", "init")
"""What the first process is named on a host; in a container it may be an engine."""
_HELPERS = re.compile(
    r"(systemd|dbus-|sshd|containerd|kube|docker).*|\(sd-pam\)|init|irqbalance|crio|conmon"
    r"|tuned|thermald|rsyslogd|chronyd|auditd|crond?|snapd|polkitd|multipathd|NetworkManager"
)
_SIZE = re.compile(
    r"^drm-(resident|memory|total)-([^:\s]+):\s*([0-9]{1,15})(?: (KiB|MiB))?$", re.M
)
_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_GROUP_FILES = (
    # Version 1, as long as it has the controller; version 2, where each line is `0::path`.
    (r"^[0-9]+:(?:[^:]*,)?cpuset(?:,[^:]*)?:(/.*)$", "sys/fs/cgroup/cpuset", "effective_cpus"),
    (r"^0::(/.*)$", "sys/fs/cgroup", "cpus.effective"),
)


def read_strangers(
    root: HostRoot,
    ours: Collection[int],
    machine: Machine,
    processes: dict[int, ProcessStat] | None = None,
) -> tuple[Stranger, ...]:
    """Processes that a plan must keep away from, by pid. Never raises: they come and go.

    `ours` are pids, sessions or process groups of our own instances; their whole families are
    left out. Of everybody else counts

    1. no kernel thread, no zombie, no helper of the system such as irqbalance or sshd;
    2. who is pinned: threads of it may run on less than all PUs that are ours to use, by affinity
       or by the cpuset of its container, and on other ones than the host's first process, which
       gives its own to everybody. Are those not its first thread, they are at least two;
    3. and is real load by `is_load`: with the memory of a model, or at work. A container's cpuset
       alone, within which the process is not pinned, asks for more of either;
    4. or who holds memory of a GPU, as far as its /proc/PID/fdinfo may be read.

    One /proc/PID/stat is read of every process, its status only from 64 MiB or one second of CPU
    time on, its threads only if it may count. Processes of other PID namespaces, or hidden by
    the mount option `hidepid`, are not seen. Arguments and environments are never read.
    `processes`: all of them, where they were read just before.
    """
    processes = read_all(root) if processes is None else processes
    known = set(family(processes, ours))
    waiting = [
        stat
        for stat in processes.values()
        if stat.pid not in known
        and stat.alive
        and stat.rss_bytes > 0  # a kernel thread has no memory of its own
        and (stat.rss_bytes >= _LIGHT_BYTES or stat.cpu_s >= _LIGHT_S)
        and not _HELPERS.fullmatch(stat.name)
    ]
    reader = _Reader(root, machine)
    found = (reader.stranger(stat) for stat in sorted(waiting, key=lambda one: -one.rss_bytes))
    return tuple(sorted((one for one in found if one), key=lambda one: one.pid))


class _Reader:
    """What is read once for all processes, and how many threads may still be asked."""

    def __init__(self, root: HostRoot, machine: Machine) -> None:
        self._root = root
        self._machine = machine
        self._uptime_s = _first_number(root.text("proc/uptime"))
        self._users: dict[int, str] | None = None
        self._threads_left = _MOST_READ
        self._everybodys = CpuSet()
        first = _fields(root, 1)
        if first.get("Name") in _INITS:
            self._everybodys = _list(first.get("Cpus_allowed_list"))
        self._gpus = {gpu.pci: gpu.index for gpu in machine.gpus if gpu.drm_render or gpu.drm_card}

    def stranger(self, stat: ProcessStat) -> Stranger | None:
        """The process as a stranger; None where it is none, or has just ended."""
        fields = _fields(self._root, stat.pid)
        uid = re.match(r"[0-9]{1,10}", fields.get("Uid", ""))
        if uid is None or "Cpus_allowed_list" not in fields:
            return None
        threads = int(_first_number(fields.get("Threads")) or 1)
        memory = stat.rss_bytes + _kib(fields.get("HugetlbPages"))
        gpus = self._held_gpus(stat.pid)
        pus = CpuSet()
        age = self._uptime_s - stat.started_ticks / TICKS_PER_S if self._uptime_s else 0.0
        busy = stat.cpu_s / age if age > 0 else 0.0
        if is_load(memory, busy, contained=False):
            narrow = self._narrow(stat.pid, fields, threads)
            group = _group_pus(self._root, stat.pid) if narrow else None
            contained = group is not None and all(group <= each for each in narrow)
            if is_load(memory, busy, contained=contained):
                pus = CpuSet(pu for each in narrow for pu in each)
        if not pus and not gpus:
            return None
        return Stranger(
            pid=stat.pid,
            name=_printable(stat.name),
            uid=int(uid.group()),
            user=self._user(int(uid.group())),
            pus=pus,
            memory_nodes=self._memory_nodes(stat.pid, fields),
            gpus=gpus,
            threads=threads,
            rss_bytes=memory,
            cpu_seconds=stat.cpu_s,
        )

    def _narrow(self, pid: int, fields: dict[str, str], threads: int) -> list[CpuSet]:
        """What those of its threads may run on that are pinned."""
        first = _list(fields["Cpus_allowed_list"])
        if threads < 2 or threads > min(_MOST_THREADS, self._threads_left):
            return [first] if self._is_narrow(first) else []
        self._threads_left -= threads
        told = thread_affinities(self._root, pid)
        narrow = [pus for pus in told.values() if self._is_narrow(pus)]
        # One thread alone of a process that else runs anywhere holds no place.
        return narrow if len(narrow) > 1 or self._is_narrow(told.get(pid, CpuSet())) else []

    def _is_narrow(self, pus: CpuSet) -> bool:
        return bool(pus) and pus != self._everybodys and not self._machine.pus.usable <= pus

    def _memory_nodes(self, pid: int, fields: dict[str, str]) -> NodeSet | None:
        """By its cpuset, else by its memory policy."""
        allowed = _list(fields.get("Mems_allowed_list"))
        with_memory = (node for node in self._machine.numa_nodes if node.memory_bytes != 0)
        nodes = NodeSet(node.os_index for node in with_memory)
        if allowed and not nodes <= allowed:
            return allowed
        # Reading on would walk the page tables of mapping after mapping.
        head = DeviceRoot.of(self._root).octets(f"proc/{pid}/numa_maps", 128) or b""
        policy = re.match(rb"[0-9a-f]+ (?:bind|interleave)(?:=\w+)?:([0-9,-]+) ", head)
        return (_list(policy.group(1).decode()) or None) if policy else None

    def _held_gpus(self, pid: int) -> tuple[int, ...]:
        """GPUs whose memory it holds, by /proc/PID/fdinfo (Documentation/gpu/drm-usage-stats)."""
        if not self._gpus:
            return ()
        held: dict[tuple[str, str], int] = {}
        for number in numbered(self._root.names(f"proc/{pid}/fd"), "")[:_MOST_FILES]:
            # A process may have thousands of other files: only a GPU's tell about memory.
            try:
                target = (self._root.path / f"proc/{pid}/fd/{number}").readlink().as_posix()
            except OSError:  # closed since, or the process has ended
                continue
            if not target.startswith("/dev/dri/"):
                continue
            info = self._root.text(f"proc/{pid}/fdinfo/{number}") or ""
            place, client = _value(info, "drm-pdev"), _value(info, "drm-client-id")
            held[place, client or f"fd {number}"] = _drm_bytes(info)
        sums: dict[str, int] = {}
        for (place, _), size in held.items():
            sums[place] = sums.get(place, 0) + size
        return tuple(
            sorted(
                self._gpus[place]
                for place, size in sums.items()
                if place in self._gpus and size >= GPU_BYTES
            )
        )

    def _user(self, uid: int) -> str:
        """By /etc/passwd alone: a directory service may keep us waiting for minutes."""
        if self._users is None:
            rows = [line.split(":") for line in (self._root.text("etc/passwd") or "").split("\n")]
            self._users = {
                int(row[2]): _printable(row[0])
                for row in rows
                if len(row) > 2 and re.fullmatch(r"[0-9]{1,10}", row[2])
            }
        return self._users.get(uid, f"uid {uid}")


def _group_pus(root: HostRoot, pid: int) -> CpuSet | None:
    """The cpuset of its control group, where that is mounted at the usual place."""
    groups = root.text(f"proc/{pid}/cgroup") or ""
    for pattern, mounted, name in _GROUP_FILES:
        line = re.search(pattern, groups, re.MULTILINE)
        if line is None or line.group(1).startswith("/.."):  # outside of our namespace
            continue
        group = normpath(line.group(1))
        while True:
            folder = f"{mounted}{group}".rstrip("/")
            if told := read_list(root, f"{folder}/cpuset.{name}"):
                return told
            if group == "/":
                break
            group = group.rpartition("/")[0] or "/"
    return None


def _fields(root: HostRoot, pid: int) -> dict[str, str]:
    """/proc/PID/status (proc_pid_status(5)); empty where there is no such process."""
    lines = (root.text(f"proc/{pid}/status") or "").split("\n")
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _list(text: str | None) -> CpuSet:
    try:
        return CpuSet.parse(text or "")
    except ValueError:
        return CpuSet()


def _kib(text: str | None) -> int:
    number = re.match(r"([0-9]{1,15}) kB$", text or "")
    return int(number.group(1)) * 1024 if number else 0


def _first_number(text: str | None) -> float | None:
    number = re.match(r"[0-9]{1,12}(\.[0-9]{1,6})?", text or "")
    return float(number.group()) if number else None


def _value(info: str, name: str) -> str:
    line = re.search(rf"^{name}:\s*(\S+)$", info, re.MULTILINE)
    return line.group(1) if line else ""


def _drm_bytes(info: str) -> int:
    """Memory of all regions: what is resident, else what drivers without that word call it."""
    sizes: dict[str, dict[str, int]] = {}
    for word, region, number, unit in _SIZE.findall(info):
        sizes.setdefault(region, {})[word] = int(number) * _UNITS[unit]
    return sum(
        next(told[word] for word in ("resident", "memory", "total") if word in told)
        for told in sizes.values()
    )


def _printable(name: str) -> str:
    """Anybody may name a process: no escape sequence gets to a terminal."""
    return "".join(char if char.isprintable() else "?" for char in name)
