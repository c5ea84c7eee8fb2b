"""A whole Control that plays what a test says: machine, snapshots, offers, answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from engine.control import (
    AnswerEnd,
    AnswerPiece,
    ApplyLayout,
    Catalogue,
    Change,
    CommandLine,
    EngineOffered,
    HeldLayout,
    LogLines,
    ModelOffered,
    MoveInstance,
    Offer,
    StartInstances,
    StopInstances,
    Verification,
    Verified,
)
from engine.core.command import Explained
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, EngineUnreachable, ServiceUnreachable
from engine.core.placement import Placement, Refusal
from engine.core.status import (
    Happening,
    InstanceStatus,
    Latency,
    MemoryBinding,
    NodeStatus,
    Requests,
    Snapshot,
    State,
    TokenRates,
)
from engine.core.topology import Machine
from engine.core.trail import PastFigures
from tests.tui.machines import GIB, SMALL

AT = "2026-01-02T03:04:05Z"


def instance(name: str, slot: str, pus: str, **changes: object) -> InstanceStatus:
    """A ready instance with plausible figures."""
    base = InstanceStatus(
        name=name,
        engine="torch",
        model="bundled:smollm2-135m",
        slot=slot,
        state=State.READY,
        why="answered its first token after 3.2 s",
        pid=4321,
        port=8001,
        url="http://127.0.0.1:8001",
        started_at=AT,
        restarts=0,
        pus=pus,
        memory=MemoryBinding("bind", "0"),
        tokens_per_s=TokenRates(12.5, 41.3),
        ttft_ms=Latency(61.0, 88.0),
        itl_ms=Latency(24.1, 31.0),
        requests=Requests(1, 0),
        cpu_cores_used=0.98,
        rss_bytes=int(0.7 * GIB),
        pages_local=1.0,
        verified=True,
        since_s=75.0,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def two_instances() -> tuple[InstanceStatus, ...]:
    """One that works, one that has failed and says why."""
    failed = instance(
        "coder",
        "core:1",
        "1",
        state=State.FAILED,
        why="exited with code 1: model file not found: /models/coder",
        pid=None,
        port=8002,
        url=None,
        restarts=3,
        tokens_per_s=TokenRates(),
        ttft_ms=Latency(),
        itl_ms=Latency(),
        requests=Requests(),
        cpu_cores_used=None,
        rss_bytes=None,
        pages_local=None,
        verified=None,
        unknown={"pages_local": "its process is gone", "ttft_ms": "no requests in 30 s"},
    )
    return (instance("chat", "core:0", "0"), failed)


def snapshot(
    machine: Machine, instances: tuple[InstanceStatus, ...], **changes: object
) -> Snapshot:
    """One moment; PU loads are a fixed pattern."""
    busy = tuple(((at * 37) % 101) / 100 for at in range(len(machine.pus.online)))
    made = Snapshot(
        sampled_at=AT,
        revision=machine.revision,
        instances=instances,
        numa_nodes=tuple(
            NodeStatus(node.os_index, 3 * GIB, 5 * GIB, 0.99, 1.0) for node in machine.numa_nodes
        ),
        pus_busy=busy,
        happenings=(Happening(AT, "information", "chat is ready"),),
        service_pid=99,
        service_version="0.1.0",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def usual_offer(change: Change, machine: Machine) -> Offer:
    """What a service would answer in the simple cases."""
    match change:
        case MoveInstance():
            return Offer("move", moves=(placement(change.name, change.slot, machine),))
        case StopInstances():
            words = tuple(
                f"{name}: 1 request in flight has 30 s to finish" for name in change.names
            )
            return Offer("stop", stops=change.names, consequences=words)
        case StartInstances():
            starts = tuple(placement(name, "core:1", machine) for name in change.names)
            return Offer("start", starts=starts)
        case ApplyLayout():
            return Offer("layout", starts=(placement("new", "numa:0", machine),), keeps=("chat",))
        case _:
            return Offer("load")


def placement(name: str, slot: str, machine: Machine) -> Placement:
    from tui.present.map_groups import slot_pus

    pus = slot_pus(machine, slot) or CpuSet([0])
    nodes = [str(node.os_index) for node in machine.numa_nodes if node.cpus.pus & pus.pus]
    return Placement(
        name,
        "torch",
        slot,
        pus,
        MemoryBinding("bind", ",".join(nodes)),
        (),
        1,
        8001,
        ("the slot asks for it",),
    )


REFUSED = Offer("no", refusals=(Refusal("chat", "2 GiB more memory needed", "Choose numa:1"),))


@dataclass
class ScriptedControl:
    """Records every change that was offered and every offer that was applied."""

    its_machine: Machine = SMALL
    its_snapshots: list[Snapshot] = field(default_factory=list)
    answer: Callable[[Change], Offer] | None = None
    apply_errors: list[ControlError] = field(default_factory=list)
    log_text: str = "loading weights\nready on http://127.0.0.1:8001\n"
    words: tuple[str, ...] = ("A NUMA node ", "is memory with ", "the cores close to it.")
    ask_fails: bool = False
    pause_s: float = 0.0
    """Between the words of an answer."""
    endless: bool = False
    """Never the end of an answer."""
    gone: bool = False
    its_past: PastFigures = field(default_factory=PastFigures)
    its_layout: HeldLayout = field(default_factory=lambda: HeldLayout(()))
    offered: list[Change] = field(default_factory=list)
    applied: list[Offer] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    aborted: int = 0
    connections: int = 0

    def __post_init__(self) -> None:
        if not self.its_snapshots:
            self.its_snapshots = [snapshot(self.its_machine, two_instances())]
        self._news = asyncio.Event()
        self._never = asyncio.Event()

    def tell(self, newer: Snapshot) -> None:
        """One more snapshot."""
        self.its_snapshots.append(newer)
        self._news.set()

    def die(self) -> None:
        """The service goes away."""
        self.gone = True
        self._news.set()

    def is_gone(self) -> bool:
        return self.gone

    def revive(self) -> None:
        self.gone = False
        self._news.clear()

    async def machine(self) -> Machine:
        return self.its_machine

    async def snapshots(self) -> AsyncIterator[Snapshot]:
        self.connections += 1
        if self.is_gone():
            raise ServiceUnreachable(what="No service", why="the socket is gone", do="Wait")
        yield self.its_snapshots[-1]
        while True:
            await self._news.wait()
            self._news.clear()
            if self.is_gone():
                return
            yield self.its_snapshots[-1]

    async def past(self) -> PastFigures:
        return self.its_past

    async def offer(self, change: Change) -> Offer:
        self.offered.append(change)
        return self.answer(change) if self.answer else usual_offer(change, self.its_machine)

    async def apply(self, offer: Offer) -> None:
        if self.apply_errors:
            raise self.apply_errors.pop(0)
        self.applied.append(offer)

    async def verify(self, names: tuple[str, ...] = (), *, repair: bool = False) -> Verification:
        ready = [one.name for one in self.its_snapshots[-1].instances if one.verified is not None]
        return Verification(tuple(Verified(name, True) for name in names or ready))

    async def command(self, name: str) -> CommandLine:
        return CommandLine(
            "OMP_NUM_THREADS=1 numactl -C 0 -m 0 python -m worker --port 8001",
            (
                Explained("program", "", "python -m worker", "driver: torch"),
                Explained("flag", "--port", "8001", "placement"),
                Explained("variable", "OMP_NUM_THREADS", "1", "driver: torch"),
                Explained("variable", "KMP_BLOCKTIME", "1", "layout"),
            ),
        )

    async def layout(self) -> HeldLayout:
        return self.its_layout

    async def catalogue(self) -> Catalogue:
        return Catalogue(
            (
                EngineOffered("torch", "cpu", ("none", "int8")),
                EngineOffered("vllm-xpu", "gpu", ("none", "fp8"), "it is not installed"),
            ),
            (
                ModelOffered("bundled:smollm2-135m", 269 << 20),
                ModelOffered("/models/coder", 14 << 30),
            ),
            "/home/me",
        )

    async def log(self, name: str, *, offset: int = -1, limit_bytes: int = 65536) -> LogLines:
        text = self.log_text if offset < 0 else self.log_text[offset:]
        return LogLines(text, len(self.log_text))

    async def ask(
        self, name: str, prompt: str, *, max_tokens: int = 128
    ) -> AsyncIterator[AnswerPiece | AnswerEnd]:
        self.asked.append((name, prompt))
        if self.ask_fails:
            raise EngineUnreachable(
                what="No answer from chat", why="connection refused", do="Look at its log (l)"
            )
        try:
            for at, word in enumerate(self.words):
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
                yield AnswerPiece(word, at + 1, 61.0 + 24.0 * at)
            if self.endless:
                await self._never.wait()
            yield AnswerEnd(61.0, 24.1, 3, 41.5, "stop")
        except (GeneratorExit, asyncio.CancelledError):
            self.aborted += 1
            raise
