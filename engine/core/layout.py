"""Layout files: the wished-for instances, read from TOML with errors that name file and line."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from engine.core.command import is_secret
from engine.core.errors import SlotError
from engine.core.layout_text.mistakes import Mistakes, shortened
from engine.core.likeness.fingerprint import Expect
from engine.core.limits import Limits, limits_of, size_bytes
from engine.core.slot import Slot

SCHEMA = 1
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z"
VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
"""A name that every shell takes: others cannot stand before a command."""
FLAG = r"[A-Za-z0-9][A-Za-z0-9_.-]*"

Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=4096)]
Seconds = Annotated[float, Meta(ge=0, le=1e6)]
"""At most eleven days; `inf` is not a number that every JSON reader knows."""
Scalar = str | int | float | bool
_MOST_BITS = 128
"""Of a number that is worth showing in an error."""


class Wish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[defaults]` and `[[instance]]` may say; unset keys fall back, then to these values."""

    engine: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    slot: str | msgspec.UnsetType = msgspec.UNSET
    dtype: Literal["auto", "float32", "float16", "bfloat16"] | msgspec.UnsetType = msgspec.UNSET
    weight_only: str | msgspec.UnsetType = msgspec.UNSET
    weights: Literal["stored", "dummy"] | msgspec.UnsetType = msgspec.UNSET
    memory: (
        Literal["bind", "preferred", "interleave", "weighted-interleave", "local"]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    memory_limit: str | msgspec.UnsetType = msgspec.UNSET
    cpu_limit: Annotated[float, Meta(ge=0.01, le=4096)] | msgspec.UnsetType = msgspec.UNSET
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] | msgspec.UnsetType = msgspec.UNSET
    core_dumps: bool | msgspec.UnsetType = msgspec.UNSET
    reserve_cores: Annotated[int, Meta(ge=0, le=4096)] | msgspec.UnsetType = msgspec.UNSET
    cores: Count | msgspec.UnsetType = msgspec.UNSET
    gpus: Count | msgspec.UnsetType = msgspec.UNSET
    strategy: Literal["spread", "pack", "isolate"] | msgspec.UnsetType = msgspec.UNSET
    core_kind: Literal["performance", "efficiency", "any"] | msgspec.UnsetType = msgspec.UNSET
    smt: bool | msgspec.UnsetType = msgspec.UNSET
    allocator: Literal["system", "tcmalloc", "jemalloc", "auto"] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    openmp: Literal["default", "intel", "auto"] | msgspec.UnsetType = msgspec.UNSET
    profile: list[str] | msgspec.UnsetType = msgspec.UNSET
    env: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    args: dict[str, Scalar] | msgspec.UnsetType = msgspec.UNSET
    restart: Literal["never", "on-failure", "always"] | msgspec.UnsetType = msgspec.UNSET
    host: Annotated[str, Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET
    python: str | msgspec.UnsetType = msgspec.UNSET
    command: list[str] | msgspec.UnsetType = msgspec.UNSET
    allow_degraded: bool | msgspec.UnsetType = msgspec.UNSET
    trust_remote_code: bool | msgspec.UnsetType = msgspec.UNSET
    ready_timeout_s: Annotated[float, Meta(gt=0, le=1e6)] | msgspec.UnsetType = msgspec.UNSET
    stop_grace_s: Seconds | msgspec.UnsetType = msgspec.UNSET
    answer_timeout_s: Seconds | msgspec.UnsetType = msgspec.UNSET


class InstanceWish(Wish, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[instance]]` as written."""

    name: Annotated[str, Meta(pattern=NAME)]
    port: Port | msgspec.UnsetType = msgspec.UNSET
    count: Count | Literal["fill"] | msgspec.UnsetType = msgspec.UNSET


class Ports(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The range from which instances without `port` get a free one."""

    first: Port = 8001
    last: Port = 8999


class Load(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The steady load that a demonstration of this layout sends to each instance."""

    concurrency: Count = 1
    input_len: Count = 32
    output_len: Count = 96


class Instance(Struct, frozen=True, kw_only=True):
    """One wished-for instance with every default filled in."""

    name: str
    engine: str = "torch"
    model: str = ""
    slot: str = "auto"
    port: int | None = None
    count: int | str | None = None
    """How many copies; "fill": as many of so many `cores` or `gpus` as have room."""
    dtype: str = "auto"
    weight_only: str = "none"
    weights: str = "stored"
    """dummy: made-up numbers in the model's shape, to measure speed and fit before a download."""
    memory: str = "bind"
    memory_limit: str | None = None
    """Such as "24GiB": the kernel ends it where it would take more main memory. None: no limit."""
    cpu_limit: float | None = None
    """So many cores' worth of CPU time; None: all of its PUs."""
    oom_score_adj: int | None = None
    """Which process goes first when memory runs out, the highest; None: as launched by default."""
    core_dumps: bool = False
    """Whether a crash may write a core file, with all its memory and so with the model."""
    reserve_cores: int | None = None
    """None: as many as the driver asks for."""
    cores: int | None = None
    """How many physical cores an `auto` slot gets; None: an even share."""
    gpus: int | None = None
    """How many GPUs an `auto` slot gets, as tensor parallel; None: one if the engine needs it."""
    strategy: str = "spread"
    """How `auto` chooses: spread over NUMA nodes, pack into few, isolate on one of its own."""
    core_kind: str | None = None
    """None: performance cores where the slot has some, and where it names no cores itself."""
    smt: bool = False
    """Also give the SMT siblings of the slot's cores."""
    allocator: str | None = None
    """Loaded before the engine's own; None: the system's, left as it is."""
    openmp: str | None = None
    """The OpenMP runtime loaded before the engine's own; None: the one that it brings."""
    profile: tuple[str, ...] = ()
    """Variables that are offered for its engine and cards, each as `NAME=value`."""
    env: dict[str, str] = {}
    args: dict[str, Scalar] = {}
    restart: str = "on-failure"
    host: str = "127.0.0.1"
    python: str | None = None
    command: tuple[str, ...] = ()
    allow_degraded: bool = False
    """Start also where the kernel refuses the memory policy or a limit; shown as not verified."""
    trust_remote_code: bool = False
    ready_timeout_s: float | None = None
    stop_grace_s: float | None = None
    answer_timeout_s: float = 0.0
    """Restarted as after a crash when ready but without an answer for longer; 0: never."""

    @property
    def limits(self) -> Limits:
        return limits_of(self.memory_limit, self.cpu_limit)


class Layout(Struct, frozen=True, kw_only=True):
    """A whole file, checked."""

    name: str
    instances: tuple[Instance, ...]
    ports: Ports = Ports()
    expect: Expect | None = None
    load: Load = Load()


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: int
    name: str = ""
    defaults: Wish = Wish()
    instance: list[InstanceWish] = []
    ports: Ports = Ports()
    expect: Expect | None = None
    load: Load = Load()


def parse_layout(
    text: str, *, name: str, engines: Mapping[str, Sequence[str]] | None = None
) -> Layout:
    """Read a layout file's text; `name` is the file's name for messages. Raises LayoutError.

    `engines` names the engines that there are and the `weight_only` forms of each; left out,
    both are taken as written.
    """
    mistakes = Mistakes(name, text)
    try:
        document = tomllib.loads(text)
    # Beside TOMLDecodeError, which is a ValueError: a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise mistakes.not_toml(error) from None
    _check_digits(document, (), mistakes)
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise mistakes.of_shape(document, error, _File) from None
    if file.schema != SCHEMA:
        raise mistakes.at(
            ("schema",),
            f"schema {file.schema} is not known to this version",
            f"Write schema = {SCHEMA}, or use the slotdeck that wrote the file",
        )
    if not file.instance:
        raise mistakes.at(
            (), "it has no [[instance]]", "Add at least one [[instance]] with a name"
        )
    _check_values(document, (), mistakes)
    if file.ports.first > file.ports.last:
        raise mistakes.at(
            ("ports", "first" if mistakes.has(("ports", "first")) else "last"),
            f"[ports] runs backwards: {file.ports.first} to {file.ports.last}",
            "Put first before last",
        )
    instances = tuple(_fill(file.defaults, wish) for wish in file.instance)
    _check_instances(instances, mistakes, engines)
    return Layout(
        name=file.name or name,
        instances=instances,
        ports=file.ports,
        expect=file.expect,
        load=file.load,
    )


def _fill(defaults: Wish, wish: InstanceWish) -> Instance:
    said: dict[str, Any] = msgspec.structs.asdict(defaults)
    for key, value in msgspec.structs.asdict(wish).items():
        if value is msgspec.UNSET:
            continue
        mixed = key in ("env", "args") and isinstance(said.get(key), dict)
        said[key] = {**said[key], **value} if mixed else value
    values = {key: value for key, value in said.items() if value is not msgspec.UNSET}
    for key in ("command", "profile"):
        values[key] = tuple(values.get(key, ()))
    return Instance(**values)


def _check_digits(value: object, path: tuple[str, ...], mistakes: Mistakes) -> None:
    """Before anything else: past some 4,000 digits Python refuses to write a number out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_digits(inner, (*path, key), mistakes)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_digits(inner, (*path, str(position)), mistakes)
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise mistakes.at(path, "the number needs more than 64 bits", "Write a smaller number")


def _check_values(value: object, path: tuple[str, ...], mistakes: Mistakes) -> None:
    """What TOML lets through and no engine could be given."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if path[-1:] == ("env",) and not re.fullmatch(VARIABLE, key):
                raise mistakes.at(
                    (*path, key),
                    f"{key!r} cannot be a variable's name",
                    "Use letters, digits and '_', no digit first",
                )
            if path[-1:] == ("args",):
                _check_flag(key, (*path, key), mistakes)
            _check_values(inner, (*path, key), mistakes)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _check_values(inner, (*path, str(position)), mistakes)
    elif isinstance(value, str) and "\0" in value:
        raise mistakes.at(path, "it holds a NUL, which no program can be given", "Remove it")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise mistakes.at(path, "the number needs more than 64 bits", "Write a smaller number")


def _check_flag(flag: str, path: tuple[str, ...], mistakes: Mistakes) -> None:
    if not re.fullmatch(FLAG, flag):
        raise mistakes.at(
            path,
            f"{flag!r} cannot be a flag's name",
            "Write the flag without its dashes: max-model-len = 2048 is --max-model-len 2048",
        )
    if is_secret(flag):
        raise mistakes.at(
            path,
            f"--{flag} would show the secret to everybody who lists processes",
            "Give the engine its variable instead, e.g. env = { VLLM_API_KEY = … }",
        )


def _check_instances(
    instances: tuple[Instance, ...],
    mistakes: Mistakes,
    engines: Mapping[str, Sequence[str]] | None,
) -> None:
    seen: dict[str, int] = {}
    for position, instance in enumerate(instances):
        if instance.name in seen:
            raise mistakes.at(
                ("instance", str(position), "name"),
                f"two instances are named {instance.name!r}",
                "Give each its own name",
            )
        seen[instance.name] = position
        try:
            slot = Slot.parse(instance.slot)
        except SlotError as error:
            raise mistakes.at(
                mistakes.said(position, "slot"), f"{error.what}: {error.why}", error.do
            ) from None
        if instance.count is not None and slot.kind not in ("auto", "each"):
            raise mistakes.at(
                ("instance", str(position), "count"),
                f"count = {instance.count} would put every copy on the one slot {instance.slot!r}",
                'Use slot = "auto" or slot = "each numa" (each package, each gpu) with count',
            )
        if instance.count == "fill" and (
            slot.kind != "auto" or (instance.cores is None and instance.gpus is None)
        ):
            raise mistakes.at(
                mistakes.said(position, "count"),
                'count = "fill" wants to know how large each copy is, and where it may choose',
                'Add cores = 4 (or gpus = 1) and slot = "auto"',
            )
        if instance.gpus is not None and slot.kind != "auto":
            last = instance.gpus - 1
            several = "0" if last == 0 else f"0,{last}" if last == 1 else f"0-{last}"
            raise mistakes.at(
                mistakes.said(position, "gpus"),
                f"gpus = {instance.gpus} says how many an auto slot gets, and the slot of "
                f"{instance.name} is {instance.slot!r}",
                f'Leave gpus out, or choose them in the slot: slot = "gpu:{several}"',
            )
        if instance.cores is not None and slot.kind not in ("auto", "gpu"):
            where = instance.slot if slot.kind in ("machine", "package", "numa") else "numa:0"
            where = where.partition("/")[0]
            last = instance.cores - 1
            raise mistakes.at(
                mistakes.said(position, "cores"),
                f"cores = {instance.cores} says how many an auto or gpu slot gets, and the slot "
                f"of {instance.name} is {instance.slot!r}",
                f"Leave cores out, or choose them in the slot: {where}/core:0-{last}",
            )
        if instance.memory_limit is not None and not size_bytes(instance.memory_limit):
            raise mistakes.at(
                mistakes.said(position, "memory_limit"),
                f"{shortened(instance.memory_limit)!r} is not a size",
                'Write a number with its unit, such as memory_limit = "24GiB" (MiB, GiB, TiB)',
            )
        if instance.engine == "command" and not instance.command:
            raise mistakes.at(
                mistakes.said(position, "engine"),
                f'engine = "command" starts what `command` says, and {instance.name} has none',
                'Add command = ["server", "--port", "{port}"]',
            )
        if engines is not None:
            _check_engine(position, instance, mistakes, engines)


def _check_engine(
    position: int,
    instance: Instance,
    mistakes: Mistakes,
    engines: Mapping[str, Sequence[str]],
) -> None:
    if instance.engine not in engines:
        raise mistakes.not_a_value(
            mistakes.said(position, "engine"), "engine", instance.engine, engines
        )
    if instance.weight_only not in engines[instance.engine]:
        raise mistakes.not_a_value(
            mistakes.said(position, "weight_only"),
            f"weight_only for the {instance.engine} engine",
            instance.weight_only,
            engines[instance.engine],
        )
