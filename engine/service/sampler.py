"""Live figures at one moment: PUs, NUMA nodes, each engine's processes, pages and metrics."""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.metrics import MetricNames, Scrape, first_of, parse_metrics, quantile, rate
from engine.core.status import Latency, NodeStatus, Requests, TokenRates
from engine.drivers.openai_api import get
from engine.host.cpu_times import Times, busy_shares, read_cpu_times
from engine.host.nodes import meminfo, numastat
from engine.host.numa import resident_nodes
from engine.host.process import family, read_all, read_stat
from engine.host.root import HostRoot

LATENCY_WINDOW_S = 30.0
FAMILY_EVERY_S = 5.0
"""How often all of /proc is searched for new children; in between only known ones are read."""
PAGES_EVERY_S = 5.0
PAGE_SAMPLES = 1000
_SCRAPE_WITHIN_S = 4.0


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
    pages_local: float | None = None
    silent_s: float = 0.0
    """Seconds since /metrics last answered."""
    unknown: dict[str, str] = field(default_factory=dict)


@dataclass
class _History:
    """What is remembered of one engine between samples."""

    mark: str
    scrapes: deque[Scrape] = field(default_factory=deque)
    members: tuple[int, ...] = ()
    members_at: float = float("-inf")
    cpu_s: dict[int, float] = field(default_factory=dict)
    cpu_at: float | None = None
    pages_local: float | None = None
    pages_why: str = "not sampled yet"
    pages_at: float = float("-inf")
    answered_at: float | None = None
    scrape_why: str = "not scraped yet"


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment."""

    pus_busy: tuple[float | None, ...]
    nodes: tuple[NodeStatus, ...]
    figures: dict[str, Figures]


class Sampler:
    """Keeps the earlier reading of everything that is shown as a rate."""

    def __init__(self, root: HostRoot, *, seed: int = 0) -> None:
        self._root = root
        self._chance = random.Random(seed)
        self._cpu_times: Times = {}
        self._numastat: dict[int, dict[str, int]] = {}
        self._histories: dict[str, _History] = {}

    async def sample(
        self, now: float, subjects: Sequence[Subject], nodes: Sequence[int]
    ) -> Sample:
        """Take a sample; `now` in seconds of a monotonic clock."""
        for subject in subjects:
            history = self._histories.get(subject.name)
            if history is None or history.mark != subject.mark:
                self._histories[subject.name] = _History(subject.mark)
        for name in self._histories.keys() - {subject.name for subject in subjects}:
            del self._histories[name]
        ready = [subject for subject in subjects if subject.ready]
        await asyncio.gather(*(self._scrape(now, subject) for subject in ready))
        host = await asyncio.to_thread(self._read_host, now, subjects, nodes)
        figures = {
            subject.name: self._figures(now, subject, *host.processes[subject.name])
            for subject in subjects
        }
        return Sample(host.pus_busy, host.nodes, figures)

    async def _scrape(self, now: float, subject: Subject) -> None:
        history = self._histories[subject.name]
        try:
            answer = await get(f"{subject.url}/metrics", timeout_s=_SCRAPE_WITHIN_S)
        except ControlError as error:
            history.scrape_why = error.why
            return
        if answer.status != 200:
            history.scrape_why = f"/metrics answers HTTP {answer.status}"
            return
        text = answer.body.decode("utf-8", "replace")
        history.scrapes.append(parse_metrics(text, subject.names, at=now))
        while now - history.scrapes[0].at > LATENCY_WINDOW_S:
            history.scrapes.popleft()
        history.answered_at, history.scrape_why = now, ""

    def _read_host(
        self, now: float, subjects: Sequence[Subject], nodes: Sequence[int]
    ) -> "_HostReading":
        times = read_cpu_times(self._root)
        shares = busy_shares(self._cpu_times, times) if self._cpu_times else {}
        self._cpu_times = times
        if any(now - self._histories[one.name].members_at >= FAMILY_EVERY_S for one in subjects):
            processes = read_all(self._root)
            for subject in subjects:
                history = self._histories[subject.name]
                history.members = family(processes, [subject.pid])
                history.members_at = now
        return _HostReading(
            pus_busy=tuple(shares.get(pu) for pu in sorted(times)),
            nodes=tuple(self._node(node) for node in nodes),
            processes={subject.name: self._processes(now, subject) for subject in subjects},
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
        stats = [stat for pid in history.members if (stat := read_stat(self._root, pid))]
        cpu_s = {stat.pid: stat.cpu_s for stat in stats}
        cores = None
        if history.cpu_at is not None and now > history.cpu_at:
            # A member that is new since then spent at most what it has; an ended one's last
            # moments are lost.
            used = sum(spent - history.cpu_s.get(pid, 0.0) for pid, spent in cpu_s.items())
            cores = max(0.0, used / (now - history.cpu_at))
        history.cpu_s, history.cpu_at = cpu_s, now
        if now - history.pages_at >= PAGES_EVERY_S:
            history.pages_at = now
            self._sample_pages(subject, history)
        return cores, sum(stat.rss_bytes for stat in stats) or None

    def _sample_pages(self, subject: Subject, history: _History) -> None:
        history.pages_local = None
        if not subject.nodes:
            history.pages_why = "its memory is bound to no NUMA node"
            return
        here = total = 0
        for pid in history.members:
            found = resident_nodes(self._root, pid, samples=PAGE_SAMPLES, chance=self._chance)
            if found is None:
                history.pages_why = "the kernel does not let us ask where its pages are"
                return
            total += sum(found.values())
            here += sum(pages for node, pages in found.items() if node in subject.nodes)
        if total:
            history.pages_local, history.pages_why = here / total, ""
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
        measured = Figures(
            cpu_cores_used=cores,
            rss_bytes=rss_bytes,
            pages_local=history.pages_local,
            unknown=unknown,
        )
        engine_keys = ("tokens_per_s", "ttft_ms", "itl_ms", "requests", "kv_cache_used")
        if not subject.ready or history.scrape_why or not history.scrapes:
            why = history.scrape_why if subject.ready else "the engine is not ready"
            unknown.update(dict.fromkeys(engine_keys, why))
            since = history.answered_at
            silent = now - since if subject.ready and since is not None else 0.0
            return replace(measured, silent_s=silent)
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
        running, waiting = first_of(last, names.running), first_of(last, names.waiting)
        return replace(
            measured,
            tokens_per_s=TokenRates(
                prompt=rate(before, last, names.prompt_tokens) if before else None,
                output=rate(before, last, names.output_tokens) if before else None,
            ),
            ttft_ms=latencies["ttft_ms"],
            itl_ms=latencies["itl_ms"],
            requests=Requests(
                None if running is None else int(running),
                None if waiting is None else int(waiting),
            ),
            kv_cache_used=first_of(last, names.kv_cache_used),
        )


@dataclass(frozen=True, slots=True)
class _HostReading:
    pus_busy: tuple[float | None, ...]
    nodes: tuple[NodeStatus, ...]
    processes: dict[str, tuple[float | None, int | None]]


def _share(
    before: dict[str, int] | None, after: dict[str, int], good: str, bad: str
) -> float | None:
    """good / (good + bad) of what was counted since the last sample; None when nothing was."""
    if before is None or not {good, bad} <= after.keys() & before.keys():
        return None
    goods, bads = after[good] - before[good], after[bad] - before[bad]
    return goods / (goods + bads) if goods + bads > 0 and min(goods, bads) >= 0 else None
