"""Layout files: the wished-for instances, read from TOML with errors that name file and line."""

import re
import tomllib
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from engine.core.errors import LayoutError, SlotError
from engine.core.slot import Slot

SCHEMA = 1
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=4096)]
Scalar = str | int | float | bool


class Wish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `[defaults]` and `[[instance]]` may say; unset keys fall back, then to these values."""

    engine: str | msgspec.UnsetType = msgspec.UNSET
    model: str | msgspec.UnsetType = msgspec.UNSET
    slot: str | msgspec.UnsetType = msgspec.UNSET
    dtype: Literal["auto", "float32", "float16", "bfloat16"] | msgspec.UnsetType = msgspec.UNSET
    weight_only: str | msgspec.UnsetType = msgspec.UNSET
    memory: Literal["bind", "preferred", "interleave", "local"] | msgspec.UnsetType = msgspec.UNSET
    reserve_cores: Annotated[int, Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET
    cores: Count | msgspec.UnsetType = msgspec.UNSET
    env: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    args: dict[str, Scalar] | msgspec.UnsetType = msgspec.UNSET
    restart: Literal["never", "on-failure", "always"] | msgspec.UnsetType = msgspec.UNSET
    host: str | msgspec.UnsetType = msgspec.UNSET
    python: str | msgspec.UnsetType = msgspec.UNSET
    command: list[str] | msgspec.UnsetType = msgspec.UNSET
    allow_degraded: bool | msgspec.UnsetType = msgspec.UNSET
    trust_remote_code: bool | msgspec.UnsetType = msgspec.UNSET
    ready_timeout_s: Annotated[float, Meta(gt=0)] | msgspec.UnsetType = msgspec.UNSET
    stop_grace_s: Annotated[float, Meta(ge=0)] | msgspec.UnsetType = msgspec.UNSET


class InstanceWish(Wish, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[instance]]` as written."""

    name: Annotated[str, Meta(pattern=NAME)]
    port: Port | msgspec.UnsetType = msgspec.UNSET
    count: Count | msgspec.UnsetType = msgspec.UNSET


class Ports(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The range from which instances without `port` get a free one."""

    first: Port = 8001
    last: Port = 8999


class Expect(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine's fingerprint, written when a layout is saved."""

    packages: int | None = None
    numa_nodes: int | None = None
    gpus: list[str] | None = None


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
    count: int | None = None
    dtype: str = "auto"
    weight_only: str = "none"
    memory: str = "bind"
    reserve_cores: int | None = None
    """None: as many as the driver asks for."""
    cores: int | None = None
    """How many physical cores an `auto` slot gets; None: an even share."""
    env: dict[str, str] = {}
    args: dict[str, Scalar] = {}
    restart: str = "on-failure"
    host: str = "127.0.0.1"
    python: str | None = None
    command: tuple[str, ...] = ()
    allow_degraded: bool = False
    """Start unbound where the kernel refuses the memory policy; shown as not verified."""
    trust_remote_code: bool = False
    ready_timeout_s: float | None = None
    stop_grace_s: float | None = None


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


def parse_layout(text: str, *, name: str) -> Layout:
    """Read a layout file's text; `name` is the file's name for messages. Raises LayoutError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise LayoutError(
            what=f"{name} is not a TOML file",
            why=str(error),
            do="Correct that line and try again",
        ) from None
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise _mistake(str(error), text, name) from None
    if file.schema != SCHEMA:
        raise _refuse(
            name,
            _line(text, ("schema",)),
            f"schema {file.schema} is not known to this version",
            f"Write schema = {SCHEMA}, or use the slotdeck that wrote the file",
        )
    if not file.instance:
        raise _refuse(
            name, 1, "it has no [[instance]]", "Add at least one [[instance]] with a name"
        )
    instances = tuple(_fill(file.defaults, wish) for wish in file.instance)
    _check(instances, text, name)
    if file.ports.first > file.ports.last:
        raise _refuse(
            name,
            _line(text, ("ports", "first")),
            "[ports] runs backwards",
            "Put first before last",
        )
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
    values["command"] = tuple(values.get("command", ()))
    return Instance(**values)


def _check(instances: tuple[Instance, ...], text: str, name: str) -> None:
    seen: dict[str, int] = {}
    for position, instance in enumerate(instances):
        at = ("instance", str(position))
        if instance.name in seen:
            raise _refuse(
                name,
                _line(text, (*at, "name")),
                f"two instances are named {instance.name!r}",
                "Give each its own name",
            )
        seen[instance.name] = position
        try:
            slot = Slot.parse(instance.slot)
        except SlotError as error:
            line = _line(text, (*at, "slot")) or _line(text, ("defaults", "slot"))
            raise LayoutError(
                what=f"{name}, line {line}: {error.what}", why=error.why, do=error.do
            ) from None
        if instance.count is not None and slot.kind not in ("auto", "each"):
            raise _refuse(
                name,
                _line(text, (*at, "count")),
                f"count = {instance.count} would put every copy on the one slot {instance.slot!r}",
                'Use slot = "auto" or slot = "each numa" (each package, each gpu) with count',
            )
        if instance.cores is not None and slot.kind != "auto":
            raise _refuse(
                name,
                _line(text, (*at, "cores")) or _line(text, ("defaults", "cores")),
                f"cores = {instance.cores} says how many an auto slot gets, and the slot is "
                f"{instance.slot!r}",
                f"Choose the cores in the slot, e.g. {instance.slot}/core:0-{instance.cores - 1}",
            )


def _mistake(message: str, text: str, name: str) -> LayoutError:
    """Turn msgspec's "… - at `$.instance[1].numa`" into file, line and the nearest right word."""
    why, _, where = message.partition(" - at `$")
    path = tuple(re.findall(r"[A-Za-z_][\w-]*|(?<=\[)\d+(?=\])", where.rstrip("`")))
    unknown = re.search(r"unknown field `([^`]*)`", message)
    if unknown:
        key = unknown.group(1)
        known = _known_keys(path)
        near = get_close_matches(key, known, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        place = f"[{path[0]}]" if path and path[0] != "instance" else "[[instance]]"
        where_text = place if path else "the file"
        return _refuse(
            name,
            _line(text, (*path, key)),
            f"{key!r} is not a key of {where_text}",
            f"{hint}It may hold: {', '.join(known)}",
        )
    why = why.replace("Object missing required field", "the key is missing:").replace("`", "'")
    if path and path[-1] == "name":
        why = "a name is 1 to 63 letters, digits, '.', '-' or '_', a letter or digit first"
    do = f"Correct {path[-1]!r}" if path else "Add it at the top of the file"
    enum = re.search(r"Invalid enum value '([^']*)'", why)
    if enum and path:
        choices = _choices(path[-1])
        near = get_close_matches(enum.group(1), choices, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        why = f"{enum.group(1)!r} is not a value of {path[-1]}"
        do = f"{hint}It may be: {', '.join(choices)}"
    return _refuse(name, _line(text, path), why, do)


def _known_keys(path: tuple[str, ...]) -> list[str]:
    tables: dict[str, type[Struct]] = {
        "defaults": Wish,
        "instance": InstanceWish,
        "ports": Ports,
        "expect": Expect,
        "load": Load,
    }
    table = tables.get(path[0], _File) if path else _File
    return sorted(field.encode_name for field in msgspec.structs.fields(table))


def _choices(key: str) -> list[str]:
    for field in msgspec.structs.fields(Wish):
        if field.encode_name == key:
            for option in getattr(field.type, "__args__", ()):
                if getattr(option, "__origin__", None) is Literal:
                    return list(option.__args__)
    return []


def _refuse(name: str, line: int | None, why: str, do: str) -> LayoutError:
    where = f"{name}, line {line}" if line else name
    return LayoutError(what=f"{where} has a mistake", why=why, do=do)


def _line(text: str, path: tuple[str, ...]) -> int | None:
    """The line on which a key stands; TOML readers keep no positions, so look for it."""
    if not path:
        return None
    table: tuple[str, ...] = ()
    counted: dict[str, int] = {}
    best: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if header := re.match(r"\[\[\s*([^\]]+?)\s*\]\]", stripped):
            counted[header.group(1)] = counted.get(header.group(1), -1) + 1
            table = (header.group(1), str(counted[header.group(1)]))
        elif header := re.match(r"\[\s*([^\]]+?)\s*\]", stripped):
            table = tuple(part.strip().strip('"') for part in header.group(1).split("."))
        elif key := re.match(r"([\w-]+|\"[^\"]+\")\s*[.=]", stripped):
            if (*table, key.group(1).strip('"')) == path[: len(table) + 1]:
                return number
            continue
        if table == path[: len(table)] and len(table) > 0:
            best = best or number if table != path else number
    return best
