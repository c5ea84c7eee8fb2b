"""Live figures at one moment: PUs, NUMA nodes, each engine's processes, pages and metrics."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.metrics import MetricNames, Scrape, first_of, parse_metrics, quantile, rate
from engine.core.status import GpuStatus, GpuUse, Latency, NodeStatus, Requests, TokenRates
from engine.core.topology import Gpu
from engine.drivers.openai_api import get
from engine.host.cpu_times import Times, busy_shares, read_cpu_times
from engine.host.nodes import meminfo, numastat
from engine.host.numa import resident_nodes
from engine.host.process import family, read_all, read_stat
from engine.host.root import HostRoot
from engine.service.gpu_sampler import GpuSample, GpuSampler

LATENCY_WINDOW_S = 30.0
FAMILY_EVERY_S = 10.0
"""How often all of /proc is searched for new children; in between only known ones are read."""
PAGES_EVERY_S = 10.0
UNWATCHED_EVERY_S = 60.0
"""Both, while nobody watches: on a large server they are most of what a sample costs."""
PAGE_SAMPLES = 1000
"""Of one engine, shared by its processes."""
SCRAPE_WITHIN_S = 30.0
"""Then the connection is given up and a new one made."""
_WAIT_FOR_SCRAPES_S = 0.25
"""An engine that answers later is shown one sample later; it holds up nobody else."""
ENGINE_FIGURES = ("tokens_per_s", "ttft_ms", "itl_ms", "requests", "kv_cache_used")
FIGURES = (*ENGINE_FIGURES, "cpu_cores_used", "rss_bytes", "pages_local")


@dataclass(frozen=True, slots=True)
class Subject:
    """One running engine to be sampled."""

    name: str
    mark: str
    """Of this start: figures of an earlier start are forgotten."""
    pid: int
    url: str
    names: MetricNames
    nodes: CpuSet
    """NUMA nodes that its memory is bound to; empty when it is bound to none."""
    ready: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of one engine; None is "not known" and `unknown` says why."""

    tokens_per_s: TokenRates = TokenRates()
    ttft_ms: Latency = Latency()
    itl_ms: Latency = Latency()
    requests: Requests = Requests()
    kv_cache_used: float | None = None
    cpu_cores_used: float | None = None
    rss_bytes: int | None = None
    gpu_use: tuple[GpuUse, ...] = ()
    pages_local: float | None = None
    silent_s: float = 0.0
    """Seconds since /metrics was asked without an answer; 0 when it answers."""
    unknown: dict[str, str] = field(default_factory=dict)
    mark: str = ""
    """Of the start that they were measured on."""


@dataclass
class _History:
    """What is remembered of one engine between samples."""

    mark: str
    scrapes: deque[Scrape] = field(default_factory=deque)
    members: dict[int, int] = field(default_factory=dict)
    """pid -> start time: a number may come to belong to somebody else."""
    members_at: float = float("-inf")
    was_ready: bool = False
    """When they were looked for: until then an engine makes most of its processes."""
    cpu_s: dict[int, float] = field(default_factory=dict)
    cpu_at: float | None = None
    pages_local: float | None = None
    pages_why: str = "not sampled yet"
    pages_at: float = float("-inf")
    asking: "asyncio.Task[None] | None" = None
    silent_since: float | None = None
    scrape_why: str = ""

    def is_due(self, now: float, subject: Subject, pause_s: float) -> bool:
        """Whether its processes are to be looked for again."""
        return now - self.members_at >= pause_s or subject.ready != self.was_ready


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment."""

    pus_busy: tuple[float | None, ...]
    nodes: tuple[NodeStatus, ...]
    figures: dict[str, Figures]
    gpus: tuple[GpuStatus, ...] = ()


class Sampler:
    """Keeps the earlier reading of everything that is shown as a rate."""

    def __init__(
        self, root: HostRoot, *, seed: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._root = root
        self._clock = clock
        self._chance = random.Random(seed)
        self._cpu_times: Times = {}
        self._numastat: dict[int, dict[str, int]] = {}
        self._histories: dict[str, _History] = {}
        self._gpus = GpuSampler(root)
        self._watched = True

    async def sample(
        self,
        now: float,
        subjects: Sequence[Subject],
        nodes: Sequence[int],
        gpus: Sequence[Gpu] = (),
        *,
        watched: bool = True,
    ) -> Sample:
        """Take a sample; `now` in seconds of the sampler's clock."""
        self._watched = watched
        marks = {subject.name: subject.mark for subject in subjects}
        for name, history in list(self._histories.items()):
            if marks.get(name) != history.mark:
                if history.asking is not None:
                    history.asking.cancel()
                del self._histories[name]
        for subject in subjects:
            self._histories.setdefault(subject.name, _History(subject.mark))
        await self._ask(now, [subject for subject in subjects if subject.ready])
        host = await asyncio.to_thread(self._read_host, now, subjects, nodes, gpus)
        figures = {
            subject.name: replace(
                self._figures(now, subject, *host.processes[subject.name]),
                gpu_use=host.gpus.uses.get(subject.name, ()),
            )
            for subject in subjects
        }
        return Sample(host.pus_busy, host.nodes, figures, host.gpus.gpus)

    async def close(self) -> None:
        """Ask nobody any more."""
        asking = [one.asking for one in self._histories.values() if one.asking is not None]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, now: float, ready: Sequence[Subject]) -> None:
        asking = []
        for subject in ready:
            history = self._histories[subject.name]
            if history.asking is None or history.asking.done():
                if history.silent_since is None:
                    history.silent_since = now
                scraping = self._scrape(subject, history)
                history.asking = asyncio.get_running_loop().create_task(scraping)
            asking.append(history.asking)
        if asking:
            await asyncio.wait(asking, timeout=_WAIT_FOR_SCRAPES_S)

    async def _scrape(self, subject: Subject, history: _History) -> None:
        try:
            answer = await get(f"{subject.url}/metrics", timeout_s=SCRAPE_WITHIN_S)
        except ControlError as error:
            history.scrape_why = error.why
            return
        at = self._clock()
        history.silent_since = None
        if answer.status != 200:
            history.scrape_why = f"/metrics answers HTTP {answer.status}"
            return
        text = answer.body.decode("utf-8", "replace")
        scrapes = history.scrapes
        scrapes.append(parse_metrics(text, subject.names, at=at))
        # One older than the window stays: what came since then is what is inside it.
        while len(scrapes) > 2 and at - scrapes[1].at >= LATENCY_WINDOW_S:
            scrapes.popleft()
        history.scrape_why = ""

    def _read_host(
        self, now: float, subjects: Sequence[Subject], nodes: Sequence[int], gpus: Sequence[Gpu]
    ) -> "_HostReading":
        times = read_cpu_times(self._root)
        shares = busy_shares(self._cpu_times, times) if self._cpu_times else {}
        self._cpu_times = times
        pause_s = FAMILY_EVERY_S if self._watched else UNWATCHED_EVERY_S
        if any(self._histories[one.name].is_due(now, one, pause_s) for one in subjects):
            processes = read_all(self._root)
            for subject in subjects:
                history = self._histories[subject.name]
                members = family(processes, [subject.pid])
                history.members = {pid: processes[pid].started_ticks for pid in members}
                history.members_at, history.was_ready = now, subject.ready
        living = {one.name: self._histories[one.name].members for one in subjects}
        return _HostReading(
            pus_busy=tuple(shares.get(pu) for pu in sorted(times)),
            nodes=tuple(self._node(node) for node in nodes),
            processes={subject.name: self._processes(now, subject) for subject in subjects},
            gpus=self._gpus.sample(now, gpus, living, watched=self._watched),
        )

    def _node(self, node: int) -> NodeStatus:
        memory, counters = meminfo(self._root, node), numastat(self._root, node)
        before = self._numastat.get(node)
        self._numastat[node] = counters
        return NodeStatus(
            os_index=node,
            used_bytes=memory.get("MemUsed"),
            free_bytes=memory.get("MemFree"),
            local_ratio=_share(before, counters, "local_node", "other_node"),
            hit_ratio=_share(before, counters, "numa_hit", "numa_miss"),
        )

    def _processes(self, now: float, subject: Subject) -> tuple[float | None, int | None]:
        history = self._histories[subject.name]
        stats = [
            stat
            for pid, ticks in history.members.items()
            if (stat := read_stat(self._root, pid)) and stat.started_ticks == ticks
        ]
        cpu_s = {stat.pid: stat.cpu_s for stat in stats}
        cores = None
        if history.cpu_at is not None and now > history.cpu_at:
            # A member that is new since then spent at most what it has; an ended one's last
            # moments are lost.
            used = sum(spent - history.cpu_s.get(pid, 0.0) for pid, spent in cpu_s.items())
            cores = max(0.0, used / (now - history.cpu_at))
        history.cpu_s, history.cpu_at = cpu_s, now
        if now - history.pages_at >= (PAGES_EVERY_S if self._watched else UNWATCHED_EVERY_S):
            history.pages_at = now
            self._sample_pages(subject, history)
        return cores, sum(stat.rss_bytes for stat in stats) or None

    def _sample_pages(self, subject: Subject, history: _History) -> None:
        history.pages_local = None
        if not subject.nodes:
            history.pages_why = "its memory is bound to no NUMA node"
            return
        here = total = 0
        refused = False
        for pid in history.members:
            samples = max(1, PAGE_SAMPLES // len(history.members))
            found = resident_nodes(self._root, pid, samples=samples, chance=self._chance)
            if found is None:  # refused, or it has just ended
                refused = True
                continue
            total += sum(found.values())
            here += sum(pages for node, pages in found.items() if node in subject.nodes)
        if total:
            history.pages_local, history.pages_why = here / total, ""
        elif refused:
            history.pages_why = "the kernel does not let us ask where its pages are"
        else:
            history.pages_why = "no resident page was found"

    def _figures(
        self, now: float, subject: Subject, cores: float | None, rss_bytes: int | None
    ) -> Figures:
        history = self._histories[subject.name]
        unknown: dict[str, str] = {}
        if history.pages_local is None:
            unknown["pages_local"] = history.pages_why
        if cores is None:
            unknown["cpu_cores_used"] = "needs a second sample"
        if rss_bytes is None:
            unknown["rss_bytes"] = "its processes have ended"
        measured = Figures(
            cpu_cores_used=cores,
            rss_bytes=rss_bytes,
            pages_local=history.pages_local,
            unknown=unknown,
            mark=subject.mark,
        )
        silent_s = now - history.silent_since if history.silent_since is not None else 0.0
        silent = silent_s > _WAIT_FOR_SCRAPES_S
        if not subject.ready or silent or history.scrape_why or not history.scrapes:
            why = history.scrape_why or ("it does not answer" if silent else "not sampled yet")
            why = why if subject.ready else "the engine is not ready"
            unknown.update(dict.fromkeys(ENGINE_FIGURES, why))
            return replace(measured, silent_s=silent_s if subject.ready else 0.0)
        names, last = subject.names, history.scrapes[-1]
        before = history.scrapes[-2] if len(history.scrapes) > 1 else None
        window = history.scrapes[0] if before else None
        if before is None:
            unknown["tokens_per_s"] = "needs a second sample"
        idle = f"no request in the last {LATENCY_WINDOW_S:g} s"
        latencies = {}
        for key, histogram in (("ttft_ms", names.ttft_s), ("itl_ms", names.itl_s)):
            seconds = [
                quantile(window, last, histogram, share) if window else None
                for share in (0.5, 0.95)
            ]
            if seconds[0] is None:
                unknown[key] = idle
            latencies[key] = Latency(*(None if s is None else s * 1000 for s in seconds))
        rates = TokenRates(
            prompt=rate(before, last, names.prompt_tokens) if before else None,
            output=rate(before, last, names.output_tokens) if before else None,
        )
        if rates.output is None and before is not None:
            unknown["tokens_per_s"] = "its /metrics has no token counter that grows"
        running, waiting = first_of(last, names.running), first_of(last, names.waiting)
        kv_cache_used = first_of(last, names.kv_cache_used)
        if running is None:
            unknown["requests"] = "its /metrics does not tell"
        if kv_cache_used is None:
            unknown["kv_cache_used"] = "its /metrics does not tell"
        return replace(
            measured,
            tokens_per_s=rates,
            ttft_ms=latencies["ttft_ms"],
            itl_ms=latencies["itl_ms"],
            requests=Requests(
                None if running is None else int(running),
                None if waiting is None else int(waiting),
            ),
            kv_cache_used=kv_cache_used,
        )


@dataclass(frozen=True, slots=True)
class _HostReading:
    pus_busy: tuple[float | None, ...]
    nodes: tuple[NodeStatus, ...]
    processes: dict[str, tuple[float | None, int | None]]
    gpus: GpuSample


def _share(
    before: dict[str, int] | None, after: dict[str, int], good: str, bad: str
) -> float | None:
    """good / (good + bad) of what was counted since the last sample; None when nothing was."""
    if before is None or not {good, bad} <= after.keys() & before.keys():
        return None
    goods, bads = after[good] - before[good], after[bad] - before[bad]
    return goods / (goods + bads) if goods + bads > 0 and min(goods, bads) >= 0 else None
