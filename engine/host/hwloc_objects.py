"""The objects of an hwloc XML file, read so that no file can make us read others or swell."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from engine.core.cpuset import CpuSet
from engine.core.errors import UsageError

MOST_BYTES = 64 << 20
"""hwloc writes about 1 kB a PU: 8192 PUs with all their devices stay far below."""

_MOST_DEPTH = 200
_MOST_WORDS = 1024
_INDEX = re.compile(r"[0-9]{1,7}")


@dataclass(frozen=True, slots=True)
class HwlocObject:
    """One `<object>`: Package, NUMANode, Core, PU, PCIDev, …"""

    kind: str
    attributes: Mapping[str, str]
    infos: Mapping[str, str]
    parents: tuple["HwlocObject", ...]
    """From the Machine down to the nearest."""

    @property
    def os_index(self) -> int | None:
        """The operating system's number; hwloc leaves it out where it is unknown."""
        text = self.attributes.get("os_index", "")
        return int(text) if _INDEX.fullmatch(text) else None

    def index_set(self, name: str) -> CpuSet | None:
        """An attribute like `cpuset` or `nodeset`; None where absent or infinite."""
        text = self.attributes.get(name)
        return None if text is None else parse_bitmap(text)

    def above(self, kind: str) -> "HwlocObject | None":
        """The nearest parent of a kind."""
        return next((each for each in reversed(self.parents) if each.kind == kind), None)


def read_topology(path: Path) -> ElementTree.Element:
    """The file's `<topology>` element. Raises UsageError for everything that is not one."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise not_hwloc(path, why) from None
    if len(data) > MOST_BYTES:
        raise not_hwloc(path, f"it is larger than {MOST_BYTES >> 20} MiB")
    top = _parse(path, data)
    if top.tag != "topology":
        raise not_hwloc(path, f"its outermost element is {top.tag[:40]!r}, not 'topology'")
    version = top.get("version", "1")
    if not re.fullmatch(r"[23](\.[0-9]{1,4})*", version):
        raise not_hwloc(
            path, f"it is of format version {version[:20]!r}, and 2 and 3 can be read here"
        )
    return top


def _parse(path: Path, data: bytes) -> ElementTree.Element:
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise not_hwloc(path, f"its elements are nested more than {_MOST_DEPTH} deep")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def doctype(name: str, system: str | None, public: str | None, inner: bool) -> None:  # noqa: FBT001 - expat calls it so
        # hwloc names its DTD and never writes one; an inner one can declare entities that
        # expand to gigabytes, or to other files.
        if inner:
            raise not_hwloc(path, "it declares a document type of its own, which hwloc never does")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat knows no names
    except expat.ExpatError as error:
        raise not_hwloc(path, f"it is not XML: {error}") from None
    return builder.close()


def objects(top: ElementTree.Element) -> Iterator[HwlocObject]:
    """Every object, parents before their children, in the file's order."""
    waiting: list[tuple[ElementTree.Element, tuple[HwlocObject, ...]]] = [
        (element, ()) for element in reversed(top.findall("object"))
    ]
    while waiting:
        element, parents = waiting.pop()
        found = HwlocObject(
            kind=element.get("type", ""),
            attributes=element.attrib,
            infos=infos(element),
            parents=parents,
        )
        yield found
        inside = (*parents, found)
        waiting += [(child, inside) for child in reversed(element.findall("object"))]


def infos(element: ElementTree.Element) -> dict[str, str]:
    """The `<info name= value=>` of an element."""
    return {each.get("name", ""): each.get("value", "") for each in element.findall("info")}


def parse_bitmap(text: str) -> CpuSet | None:
    """hwloc's form of a set: 32-bit words, highest first (`0x00000001,,0x0000000f`).

    An empty word is zero. None for the infinite sets (`0xf...f`) and for garbage.
    """
    words = text.split(",")
    if len(words) > _MOST_WORDS:
        return None
    bits = 0
    for word in words:
        if word and not re.fullmatch(r"0x[0-9a-fA-F]{1,8}", word):
            return None
        bits = bits << 32 | int(word or "0", 16)
    return CpuSet(index for index in range(bits.bit_length()) if bits >> index & 1)


def not_hwloc(path: Path, why: str) -> UsageError:
    """The one complaint about such a file."""
    return UsageError(
        what=f"{path} cannot be read as hwloc's XML",
        why=why,
        do="Write it on that machine with `lstopo --disallowed --of xml FILE.xml` (hwloc 2 or 3)",
    )
