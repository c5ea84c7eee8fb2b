"""The one door: the Control protocol that the panel and the command line share, and its values."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from engine.core.command import Explained
from engine.core.layout import Instance
from engine.core.placed import Placement, Refusal
from engine.core.status import Snapshot
from engine.core.topology import Machine
from engine.core.trail import PastFigures


@dataclass(frozen=True, slots=True)
class ApplyLayout:
    """Make what runs equal to a layout file: start, stop and move only what differs."""

    name: str
    """The file's name, for messages."""
    text: str
    """The file's TOML text."""
    base: str
    """The absolute directory that relative model paths are relative to."""


@dataclass(frozen=True, slots=True)
class StartInstances:
    """Start stopped or failed instances again where they were."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RestartInstances:
    """Stop instances that run, and start them again where they were."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopInstances:
    """Stop instances; requests in flight may finish within the engine's grace."""

    names: tuple[str, ...]
    forget: bool = False
    """Also drop them from the list once they have stopped."""


@dataclass(frozen=True, slots=True)
class MoveInstance:
    """Place an instance on another slot: live where that can be, else by a restart there."""

    name: str
    slot: str
    restart: bool = False
    """Start it anew there, even where it could be moved live."""


@dataclass(frozen=True, slots=True)
class HeldWish:
    """One instance as it is wished now, and where its relative paths start."""

    wish: Instance
    base: str


@dataclass(frozen=True, slots=True)
class Seat:
    """One instance and the slot that it shall have."""

    name: str
    slot: str


@dataclass(frozen=True, slots=True)
class MoveInstances:
    """Several at once, placed beside each other: they may also change places."""

    seats: tuple[Seat, ...]


@dataclass(frozen=True, slots=True)
class AddInstances:
    """Start new instances beside those that there are."""

    wishes: tuple[HeldWish, ...]


@dataclass(frozen=True, slots=True)
class Undo:
    """Take the newest change of placements back: every instance to the very PUs that it had."""


@dataclass(frozen=True, slots=True)
class Redo:
    """Do again what was taken back last."""


@dataclass(frozen=True, slots=True)
class StartLoad:
    """Send steady streaming requests to instances, for at most `duration_s` seconds."""

    names: tuple[str, ...]
    concurrency: int = 1
    input_len: int = 32
    output_len: int = 96
    duration_s: float = 600.0


@dataclass(frozen=True, slots=True)
class StopLoad:
    """End the running load."""


Change = (
    ApplyLayout
    | StartInstances
    | RestartInstances
    | StopInstances
    | MoveInstance
    | MoveInstances
    | AddInstances
    | Undo
    | Redo
    | StartLoad
    | StopLoad
)


def words_of(change: Change) -> str:
    """The change in few words, as one asks for it."""
    match change:
        case ApplyLayout(name=name):
            return f"apply the layout {name}"
        case StartInstances(names=names):
            return f"start {', '.join(names)}"
        case RestartInstances(names=names):
            return f"restart {', '.join(names)}"
        case StopInstances(names=names, forget=forget):
            return f"{'forget' if forget else 'stop'} {', '.join(names)}"
        case MoveInstance(name=name, slot=slot):
            return f"move {name} to {slot}"
        case MoveInstances(seats=seats):
            return "move " + ", ".join(f"{seat.name} to {seat.slot}" for seat in seats)
        case AddInstances(wishes=wishes):
            return "start new " + ", ".join(
                f"{one.wish.name} on {one.wish.slot}" for one in wishes
            )
        case Undo():
            return "undo"
        case Redo():
            return "do again"
        case StartLoad(names=names):
            return f"send load to {', '.join(names)}"
        case StopLoad():
            return "end the load"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a change would do, for one machine and one set of instances; apply it or lose it."""

    id: str
    starts: tuple[Placement, ...] = ()
    stops: tuple[str, ...] = ()
    moves: tuple[Placement, ...] = ()
    live: tuple[str, ...] = ()
    """Which of the moves carry over the running process; the others are a restart there, and the
    consequences say why."""
    keeps: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """When there is one, nothing of the offer can be applied."""
    consequences: tuple[str, ...] = ()
    """What will be lost or changed, in words: "a: 2 requests in flight have 30 s to finish"."""
    machine_revision: str = ""
    """Of the machine that it was made for: it is stale on another one."""


@dataclass(frozen=True, slots=True)
class HeldLayout:
    """What is wished now, secrets of `env` included, and the file that it came from."""

    wishes: tuple[HeldWish, ...]
    """Copies one by one, slots in this machine's numbers."""
    name: str = ""
    """The layout's own name."""
    path: str = ""
    """The file that was applied last; empty where the service does not know it any more."""
    text: str = ""
    """That file's text as it was applied."""


@dataclass(frozen=True, slots=True)
class EngineOffered:
    """An engine that a new instance may have."""

    name: str
    device: str
    """cpu, gpu, or any: what it computes on."""
    weight_only: tuple[str, ...]
    why_not: str = ""
    """Why it cannot be started here now; empty where it can."""


@dataclass(frozen=True, slots=True)
class ModelOffered:
    """A model that a new instance may have."""

    name: str
    """As a layout says it."""
    weights_bytes: int | None
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What new instances can be made of on this machine."""

    engines: tuple[EngineOffered, ...]
    models: tuple[ModelOffered, ...]
    """Bundled ones, those in the cache of the model hub, and those that instances have."""
    base: str
    """Where relative model paths of a new instance start."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was asked for."""

    what: str
    """affinity, memory policy, pages, file pages, GPU or port."""
    asked: str
    got: str
    do: str

    def __str__(self) -> str:
        return f"{self.got}, asked {self.asked}"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was asked for one running instance against what the kernel shows."""

    name: str
    verified: bool
    differences: tuple[Difference, ...] = ()
    repaired: tuple[str, ...] = ()
    """What a repair did, in words."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer of `Control.verify`."""

    instances: tuple[Verified, ...]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How an instance is started; secrets redacted."""

    shell: str
    """The same as a line to type by hand, with `numactl`."""
    parts: tuple[Explained, ...]
    """Each word and variable, and who asked for it."""


@dataclass(frozen=True, slots=True)
class LogLines:
    """A piece of an instance's log."""

    text: str
    next_offset: int
    """Give this back as `offset` to read on."""


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """Text of an answer as it arrives."""

    text: str
    tokens: int
    at_ms: float
    """Milliseconds since the answer was asked for, connecting included."""


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """The end of an answer, with what was measured at the service's socket."""

    ttft_ms: float | None
    itl_ms_mean: float | None
    """None for an answer of one token."""
    output_tokens: int
    output_tokens_per_s: float | None
    """Of this one request, first token to last."""
    finish_reason: str | None


class Control(Protocol):
    """One machine's instances, seen and changed from a panel or the command line.

    Each method raises a `ControlError` that says what, why and what to do.
    """

    async def machine(self) -> Machine:
        """The machine's facts as the service reads them now."""
        ...

    def snapshots(self) -> AsyncIterator[Snapshot]:
        """Snapshots as they are taken, the newest at once; ends when the service goes away."""
        ...

    async def past(self) -> PastFigures:
        """The figures of the last minutes, for plots that do not start empty."""
        ...

    async def offer(self, change: Change) -> Offer:
        """What the change would do; nothing happens yet."""
        ...

    async def apply(self, offer: Offer) -> None:
        """Do what was offered. Raises StaleOffer when the world has changed since.

        Returns when the change has begun; snapshots show how it goes.
        """
        ...

    async def verify(self, names: tuple[str, ...] = (), *, repair: bool = False) -> Verification:
        """Look again at running instances, at all of them without names; `repair` first brings
        threads and pages back to where they were asked for."""
        ...

    async def command(self, name: str) -> CommandLine:
        """The instance's command line and environment, each part with its source."""
        ...

    async def layout(self) -> HeldLayout:
        """What is wished now, to be saved as a layout file."""
        ...

    async def catalogue(self) -> Catalogue:
        """The engines and models for a new instance."""
        ...

    async def log(self, name: str, *, offset: int = -1, limit_bytes: int = 65536) -> LogLines:
        """The log from `offset`; -1 reads the last `limit_bytes`."""
        ...

    def ask(
        self, name: str, prompt: str, *, max_tokens: int = 128
    ) -> AsyncIterator[AnswerPiece | AnswerEnd]:
        """Send one chat prompt to an instance and stream its answer; closing it aborts."""
        ...
