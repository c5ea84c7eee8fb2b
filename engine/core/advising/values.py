"""What is asked of advice and what it answers: proposals, rejections, and what is not known."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.core.layout import Instance
from engine.core.placing.engine_traits import EngineTraits

Goal = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What advice has to know of an engine, as its driver tells."""

    name: str
    traits: EngineTraits
    forms: tuple[str, ...]
    """Its `weight_only` values."""
    downloads: bool = False
    """Whether it takes a hub id and fetches the model itself."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The question."""

    model: str
    goal: Goal = "throughput"
    engine: str | None = None
    """None: the default one for CPUs and the default one for the cards."""
    context: int | None = None
    """Tokens of prompt and answer together; None: `START_CONTEXT`, or the model's longest."""
    sequences: int | None = None
    """At once on each replica; None: as the goal wants."""
    is_local: bool = True
    """Whether the model's files are on this machine."""
    cpu_flags: frozenset[str] | None = None
    """`flags` of /proc/cpuinfo; None where they are not known."""
    families: Mapping[int, str] = field(default_factory=dict)
    """Families of cards by the GPU's index, where they are known."""


@dataclass(frozen=True, slots=True)
class PerReplica:
    """What the least lucky replica gets and needs; None is "not known"."""

    cores: int
    memory_bytes: int | None = None
    """Of its NUMA nodes, shared out among the replicas on them; None on cards."""
    card_bytes: int | None = None
    """Of each of its cards; None on CPUs."""
    cards: int = 0
    needs_bytes: int | None = None
    """As the layout is written; on cards what the fullest of them holds."""
    longest_context: int | None = None
    """In tokens, with `sequences` as the layout has them."""
    sequences: int | None = None
    """That fit at once with the layout's context, each at full length."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A layout that plans without a refusal on this machine, and why one would want it."""

    title: str
    layout: str
    """TOML that `parse_layout` takes."""
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]
    replicas: int
    fits: bool | None
    """None: the sizes are not known."""
    per_replica: PerReplica


@dataclass(frozen=True, slots=True)
class Rejection:
    """A layout that one could think of, why it is not offered, and what would help."""

    title: str
    why: str
    do: str


@dataclass(frozen=True, slots=True)
class Advice:
    """The answer, the best proposal first."""

    model: str
    goal: Goal
    machine: str
    advice: tuple[Proposal, ...]
    rejected: tuple[Rejection, ...]
    unknown: tuple[str, ...]
    engines: tuple[str, ...] = ()
    """Those that were chosen, each with the reason."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A layout to be tried: the first of `tries` that fits becomes the proposal."""

    title: str
    tries: tuple["Try", ...]
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    quiet: bool = False
    """A variant that is not worth a word where it does not fit."""


@dataclass(frozen=True, slots=True)
class Try:
    """One way to write it; a title and reasons of its own are added to the candidate's."""

    wishes: tuple[Instance, ...]
    suffix: str = ""
    """Goes behind the title: "in INT8"."""
    reasons: tuple[str, ...] = ()
    split: int = 1
    """Ranks of a tensor-parallel instance on CPUs."""
