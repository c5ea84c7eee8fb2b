"""What runs and how it does: the values of one moment, as `slotdeck.status/1` shows them."""

from dataclasses import dataclass, field
from enum import StrEnum

from engine.core.strangers import Stranger

MOST_STRANGERS = 64
"""In one snapshot; those with the most memory."""


class State(StrEnum):
    """An instance's states; each carries a reason in words beside it."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    BACKOFF = "backoff"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MemoryBinding:
    """A memory policy and the NUMA nodes it names."""

    policy: str
    """bind, preferred, interleave or local."""
    nodes: str
    """Node set in kernel form; empty for `local`."""


@dataclass(frozen=True, slots=True)
class TokenRates:
    """Tokens per second over the last sampling interval; None when not known."""

    prompt: float | None = None
    output: float | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds, estimated from the engine's histogram buckets over the last 30 seconds."""

    p50: float | None = None
    p95: float | None = None


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests inside the engine now."""

    running: int | None = None
    waiting: int | None = None


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What an instance's processes take of one GPU; None is "not known"."""

    index: int
    memory_bytes: int | None = None
    """On the card."""
    busy: float | None = None
    """Share of time, 0 to 1, of the busiest class of engines since the last sample."""
    engines: dict[str, float] = field(default_factory=dict)
    """Class -> share that it kept busy."""
    why: str = ""
    """Why a value above is None."""


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance: what was asked, what it is, what it does. None is "not known"."""

    name: str
    engine: str
    model: str
    slot: str
    state: State
    why: str
    """The reason of the state in words."""
    pid: int | None
    port: int | None
    url: str | None
    started_at: str | None
    """UTC, ISO 8601."""
    restarts: int
    pus: str
    """The CPU set that it holds, kernel form."""
    memory: MemoryBinding
    gpus: tuple[int, ...] = ()
    tokens_per_s: TokenRates = TokenRates()
    ttft_ms: Latency = Latency()
    itl_ms: Latency = Latency()
    requests: Requests = Requests()
    kv_cache_used: float | None = None
    """Share of the KV cache in use, 0 to 1."""
    cpu_cores_used: float | None = None
    """CPU time per second of its whole process tree, in cores."""
    rss_bytes: int | None = None
    gpu_use: tuple[GpuUse, ...] = ()
    """Of each GPU that it holds or has open."""
    pages_local: float | None = None
    """Share of sampled resident pages that lie on the bound NUMA nodes, 0 to 1."""
    verified: bool | None = None
    """Asked against got: True all as asked, False something differs, None not checked yet."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Why a value above is None: its key -> the reason in words."""
    since_s: float = 0.0
    """Seconds spent in this state."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """A NUMA node's memory and its *allocation* counters (allocations are not accesses)."""

    os_index: int
    used_bytes: int | None
    free_bytes: int | None
    local_ratio: float | None
    """local_node / (local_node + other_node) over the last interval; None without allocations."""
    hit_ratio: float | None
    """numa_hit / (numa_hit + numa_miss) over the last interval."""


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """A GPU now; None is "not known", and `unknown` says why."""

    index: int
    busy: float | None = None
    """Share of time, 0 to 1, that its busiest class of engines worked since the last sample."""
    memory_used_bytes: int | None = None
    power_w: float | None = None
    """Mean since the last sample."""
    temperature_c: float | None = None
    frequency_mhz: float | None = None
    """Of its compute engines now; 0 while they sleep."""
    memory_total_bytes: int | None = None
    engines: dict[str, float] = field(default_factory=dict)
    """Class (render, compute, copy, video, video-enhance) -> its busy share."""
    throttle: tuple[str, ...] | None = None
    """What holds its clock down (pl1, thermal…); empty where nothing does."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Why a value above is None: its key -> the reason in words."""
    notes: dict[str, str] = field(default_factory=dict)
    """What a value above leaves out: its key -> in words."""


@dataclass(frozen=True, slots=True)
class LoadStatus:
    """The load generator that the service runs, if any."""

    targets: tuple[str, ...]
    concurrency: int
    """Streams per target."""
    pid: int
    ends_in_s: float


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the event list: who did what when."""

    at: str
    """UTC, ISO 8601."""
    severity: str
    """information, warning or error."""
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that changes, at one moment; the machine itself is asked for apart."""

    sampled_at: str
    """UTC, ISO 8601."""
    revision: str
    """The machine's revision; when it changes, ask for the machine again."""
    instances: tuple[InstanceStatus, ...]
    numa_nodes: tuple[NodeStatus, ...]
    gpus: tuple[GpuStatus, ...] = ()
    pus_busy: tuple[float | None, ...] = ()
    """Busy share 0 to 1 of each online PU, in ascending order of OS index."""
    load: LoadStatus | None = None
    happenings: tuple[Happening, ...] = ()
    """The newest 100, oldest first."""
    service_pid: int = 0
    service_version: str = ""
    strangers: tuple[Stranger, ...] = ()
    """Programs that are not ours and hold PUs or GPUs, looked for now and then while somebody
    watches; at most `MOST_STRANGERS`."""
    undo: str = ""
    """The change that `Undo` would take back, in words; empty where there is none."""
    redo: str = ""
    """The same for `Redo`."""
