"""How two machines differ, in words, part by part."""

from collections import Counter
from collections.abc import Iterable

from engine.core.cpuset import CpuSet
from engine.core.likeness.fingerprint import Expect
from engine.core.likeness.renumbering import enough
from engine.core.likeness.shape import Shape, gpu_name
from engine.core.topology import Machine


def unlike_counts(expect: Expect, machine: Machine) -> list[str]:
    """By the three keys that every `[expect]` may have."""
    found = []
    for one, many, wanted, has in (
        ("package", "packages", expect.packages, len(machine.packages)),
        ("NUMA node", "NUMA nodes", expect.numa_nodes, len(machine.numa_nodes)),
    ):
        if wanted is not None and wanted != has:
            found.append(f"{_count(wanted, one, many)} expected, this machine has {has}")
    if expect.gpus is not None:
        wanted_gpus = Counter(expect.gpus)
        present = Counter(gpu_name(gpu) for gpu in machine.gpus)
        found += [
            f"{_count(wanted_gpus[name], 'GPU', 'GPUs')} {name} expected, "
            f"this machine has {present[name] or 'none'}"
            for name in sorted(wanted_gpus | present)
            if wanted_gpus[name] != present[name]
        ]
    return found


def unlike(saved: Shape, here: Shape) -> list[str]:
    """Where the shapes of two machines with equal counts differ; never empty."""
    return (
        _of_places("package", saved, here)
        or _of_places("numa", saved, here)
        or _of_memory(saved, here)
        or ["its packages, NUMA nodes and GPUs hang together in another way"]
    )


_Traits = dict[str, str]
"""What stands in a place, by what it is: "cores" → "8 cores of 2 PUs"."""


def _of_places(kind: str, saved: Shape, here: Shape) -> list[str]:
    was, now = _all_traits(kind, saved), _all_traits(kind, here)
    left = dict(now)
    unmatched = []
    for index, traits in was.items():
        same = [other for other, found in left.items() if found == traits]
        if same:
            left.pop(index if index in same else same[0])
        else:
            unmatched.append(index)
    found: list[tuple[int, str]] = []
    for index in unmatched:
        if not left:
            found.append((index, "nothing here is like it"))
            continue
        other = index if index in left else min(left)
        traits = left.pop(other)
        where = "here" if other == index else f"{other} here has"
        found += [
            (index, f"had {text}, {where} {traits[what]}")
            for what, text in was[index].items()
            if traits[what] != text
        ]
    return _in_words("NUMA node" if kind == "numa" else "package", found)


def _in_words(what: str, found: Iterable[tuple[int, str]]) -> list[str]:
    """What holds of several is said once."""
    of: dict[str, list[int]] = {}
    for index, text in found:
        of.setdefault(text, []).append(index)
    return [
        f"the saved {what} {indexes[0]} {text}"
        if len(indexes) == 1
        else f"the saved {what}s {CpuSet(indexes)}: each {text}"
        for text, indexes in of.items()
    ]


def _all_traits(kind: str, shape: Shape) -> dict[int, _Traits]:
    if kind == "package":
        return {
            index: {
                "cores": _cores_in_words(shape, shape.cores_in(kind, CpuSet([index]))),
                "nodes": _count(
                    len({n for c in shape.cores if c.package == index for n in c.nodes}),
                    *("NUMA node", "NUMA nodes"),
                ),
            }
            for index in shape.packages
        }
    indexes = CpuSet([*shape.nodes, *(node for core in shape.cores for node in core.nodes)])
    return {
        index: {
            "cores": _cores_in_words(shape, shape.cores_in(kind, CpuSet([index]))),
            "gpus": _names(gpu.name for gpu in shape.gpus.values() if gpu.node == index),
            "near": f"memory nearest to {_count(len(shape.node(index).near), 'node', 'nodes')}",
        }
        for index in indexes
    }


def _of_memory(saved: Shape, here: Shape) -> list[str]:
    sizes = {
        "NUMA node": [(i, one.gib, here.node(i).gib) for i, one in saved.nodes.items()],
        "GPU": [(i, one.gib, here.gpus[i].gib) for i, one in saved.gpus.items()],
    }
    kinds = [(i, node.kind, here.node(i).kind) for i, node in saved.nodes.items()]
    return [
        words
        for what, pairs in sizes.items()
        for words in _in_words(
            what,
            [
                (index, f"had {was:g} GiB of memory, here {now:g} GiB")
                for index, was, now in pairs
                if was is not None and now is not None and not enough(was, now)
            ],
        )
    ] + _in_words(
        "NUMA node",
        [
            (index, f"was {was} memory, here {now}")
            for index, was, now in kinds
            if was != now and "unknown" not in (was, now)
        ],
    )


def _cores_in_words(shape: Shape, indexes: Iterable[int]) -> str:
    kinds = Counter(
        (shape.cores[index].kind or "", len(shape.cores[index].pus)) for index in indexes
    )
    if not kinds:
        return "no cores"
    return " and ".join(
        f"{count} {kind + ' ' if kind else ''}core{'' if count == 1 else 's'} "
        f"of {_count(pus, 'PU', 'PUs')}"
        for (kind, pus), count in sorted(kinds.items())
    )


def _names(names: Iterable[str]) -> str:
    counted = Counter(names)
    return (
        " and ".join(
            f"{_count(count, 'GPU', 'GPUs')} {name}" for name, count in sorted(counted.items())
        )
        or "no GPU"
    )


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
