"""Machines made up from a line like `pack:2 numa:2 core:8 pu:2 gpu:2 mem:64GiB`."""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import UsageError
from engine.core.topology import Core, Gpu, Machine, Missing, NumaNode, Package, Pus

GRAMMAR = "pack:N numa:N core:N pu:N gpu:N*SIZE mem:SIZE"

_LEVELS = ("pack", "numa", "core", "pu")
_WORDS = (*_LEVELS, "gpu", "mem")
_SYNONYMS = {
    **dict.fromkeys(("package", "socket", "chip", "cpu"), "pack"),
    **dict.fromkeys(("node", "numanode"), "numa"),
    **dict.fromkeys(("thread", "smt", "ht"), "pu"),
    **dict.fromkeys(("memory", "ram"), "mem"),
    **dict.fromkeys(("card", "xpu"), "gpu"),
}
_UNITS: dict[str, int] = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}

# Linux itself ends at 8192 PUs and 1024 NUMA nodes; one root bus has room for 255 cards.
_MOST_PUS = 8192
_MOST_NODES = 1024
_MOST_GPUS = 255
_MOST_BYTES = 1 << 60

LOCAL, NEAR, FAR = 10, 12, 20
"""Distances: a node to itself, to one of its package, to one of another package.

10 and 20 are ACPI's local and default remote distance, 12 is usual for sub-NUMA clusters.
"""


@dataclass(frozen=True, slots=True)
class _Wish:
    """How many of each, per parent, and where in the text that stands."""

    counts: dict[str, int]
    memory_bytes: int | None
    gpu_bytes: int | None
    at: dict[str, int]


def parse_synthetic(spec: str) -> Machine:
    """The machine that the line describes; raises UsageError that points at the character.

    Each count is per parent (`numa` per `pack`, `core` per `numa`, `pu` per `core`), 1 where it
    is left out; `gpu` and `mem` are per NUMA node. PUs are numbered as Linux does on Xeon: the
    first sibling of every core through all packages, then the second ones.
    """
    wish = _parse(spec)
    packs, numas, cores, pus = (wish.counts[word] for word in _LEVELS)
    total = packs * numas * cores
    if total * pus > _MOST_PUS:
        why = f"{total * pus} PUs are more than the {_MOST_PUS} that Linux can have"
        raise _mistake(spec, _largest(wish, _LEVELS), why)
    if packs * numas > _MOST_NODES:
        why = f"{packs * numas} NUMA nodes are more than the {_MOST_NODES} that Linux can have"
        raise _mistake(spec, _largest(wish, _LEVELS[:2]), why)
    all_cores = tuple(
        Core(
            package=index // (numas * cores),
            # Cores are numbered through their package, as on Xeon with sub-NUMA clusters.
            core_id=index % (numas * cores),
            numa_nodes=NodeSet([index // cores]),
            pus=CpuSet(range(index, total * pus, total)),
        )
        for index in range(total)
    )
    nodes = tuple(
        NumaNode(
            os_index=node,
            cpus=CpuSet(
                pu for core in all_cores[node * cores : (node + 1) * cores] for pu in core.pus
            ),
            memory_bytes=wish.memory_bytes,
            packages=(node // numas,),
            kind="dram" if wish.memory_bytes else "unknown",
        )
        for node in range(packs * numas)
    )
    online = CpuSet(range(total * pus))
    every_node = NodeSet(range(len(nodes)))
    return Machine(
        packages=tuple(
            Package(
                os_index=pack,
                numa_nodes=NodeSet(range(pack * numas, (pack + 1) * numas)),
                cores=numas * cores,
            )
            for pack in range(packs)
        ),
        numa_nodes=nodes,
        cores=all_cores,
        pus=Pus(online=online, offline=CpuSet(), usable=online),
        usable_nodes=every_node,
        distances=tuple(
            tuple(_distance(origin, target, numas) for target in every_node)
            for origin in every_node
        ),
        gpus=tuple(
            _gpu(node, card, wish)
            for node in range(len(nodes))
            for card in range(wish.counts["gpu"])
        ),
        missing=tuple(_missing(wish)),
        live=False,
    )


def _distance(origin: int, target: int, numas: int) -> int:
    if origin == target:
        return LOCAL
    return NEAR if origin // numas == target // numas else FAR


def _gpu(node: int, card: int, wish: _Wish) -> Gpu:
    """A card on a root bus of its node's own: PCI order is then the order of the nodes."""
    index = node * wish.counts["gpu"] + card
    return Gpu(
        index=index,
        pci=f"{node:04x}:{card + 1:02x}:00.0",
        vendor="8086",
        device=None,
        name="made-up GPU",
        driver=None,
        numa_node=node,
        memory_bytes=wish.gpu_bytes,
        bar_bytes=None,
        bar_address=None,
        link_gt_s=None,
        link_width=None,
        drm_card=f"card{index}",
        drm_render=f"renderD{128 + index}",
    )


def _missing(wish: _Wish) -> list[Missing]:
    missing: list[Missing] = []
    if wish.memory_bytes is None:
        missing.append(Missing("numa_nodes[*].memory_bytes", "made up without mem:SIZE"))
    if wish.counts["gpu"]:
        if wish.gpu_bytes is None:
            missing.append(Missing("gpus[*].memory_bytes", "made up without gpu:N*SIZE"))
        fields = ("device", "driver", "bar_bytes", "bar_address", "link_gt_s", "link_width")
        missing += [Missing(f"gpus[*].{field}", "made up: nothing says") for field in fields]
    return missing


def _parse(spec: str) -> _Wish:
    counts = {**dict.fromkeys(_LEVELS, 1), "gpu": 0}
    memory_bytes = gpu_bytes = None
    at: dict[str, int] = {}
    for part in re.finditer(r"\S+", spec):
        start = part.start()
        word, colon, value = part.group().partition(":")
        if word not in _WORDS:
            raise _mistake(spec, start, f"{_shortened(word)!r} is not a word here", word)
        if not colon or not value:
            raise _mistake(spec, part.end(), f"a value is missing, as in {_example(word)}")
        if word in at:
            raise _mistake(spec, start, f"{word!r} stands here a second time")
        later = [name for name in at if name in _LEVELS and word in _LEVELS[: _LEVELS.index(name)]]
        if later:
            # hwloc would build NUMA nodes that span packages from the same words.
            raise _mistake(
                spec, start, f"{word!r} belongs before {later[0]!r}: each is per parent"
            )
        at[word] = start
        start += len(word) + 1
        if word == "mem":
            memory_bytes = _bytes(spec, start, value)
        elif word == "gpu":
            number, star, size = value.partition("*")
            counts["gpu"] = _count(spec, start, number, least=0, most=_MOST_GPUS)
            gpu_bytes = _bytes(spec, start + len(number) + 1, size) if star else None
        else:
            counts[word] = _count(spec, start, value, least=1, most=_MOST_PUS)
    if not at:
        raise _mistake(spec, 0, "it is empty")
    return _Wish(counts, memory_bytes, gpu_bytes, at)


def _count(spec: str, position: int, text: str, *, least: int, most: int) -> int:
    # isdigit() alone also takes other scripts' digits; int() alone takes signs and underscores.
    if not (text.isascii() and text.isdigit()):
        raise _mistake(spec, position, f"{_shortened(text)!r} is not a number")
    if len(text) > 9 or not least <= int(text) <= most:
        raise _mistake(spec, position, f"{_shortened(text)} is not from {least} to {most}")
    return int(text)


def _bytes(spec: str, position: int, text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([A-Za-z]*)", text)
    if match is None:
        raise _mistake(spec, position, f"{_shortened(text)!r} is not a size like 64GiB")
    number, unit = match.groups()
    if unit not in _UNITS:
        why = f"{unit!r} is not a unit" if unit else "a unit is missing"
        near = next((right for right in _UNITS if right.lower() == unit.lower()), None)
        near = near or next((u for u in ("GiB", "MiB", "TiB") if unit[:1].upper() == u[0]), "GiB")
        raise _mistake(spec, position + len(number), why, right=f"{number}{near}")
    size = round(float(number) * _UNITS[unit])
    if size > _MOST_BYTES:
        raise _mistake(spec, position, f"{_shortened(text)} is more than any machine has")
    return size


def _largest(wish: _Wish, words: tuple[str, ...]) -> int:
    """Where the largest count stands: the likeliest slip of the finger."""
    word = max(words, key=lambda each: wish.counts[each])
    return wish.at.get(word, 0)


def _example(word: str) -> str:
    return {"mem": "mem:64GiB", "gpu": "gpu:2*24GiB"}.get(word, f"{word}:2")


def _shortened(text: str, most: int = 24) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _mistake(
    spec: str, position: int, why: str, word: str | None = None, *, right: str | None = None
) -> UsageError:
    if word is not None:
        low = word.lower()
        near = get_close_matches(low, (*_WORDS, *_SYNONYMS), n=1)
        right = _SYNONYMS.get(near[0], near[0]) if near else None
    hint = f"Did you mean {right!r}? " if right else ""
    return UsageError(
        what=f"Machine {_shortened(spec, 60)!r} has a mistake at character {position + 1}",
        why=why,
        do=f"{hint}Write it as: {GRAMMAR}",
    )
