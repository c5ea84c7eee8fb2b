"""An engine's flags in their order, where the layout's own values take the driver's place."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from engine.core.command import LAYOUT
from engine.core.layout import Scalar


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag as it will be written."""

    name: str
    """Without dashes."""
    value: str | bool | None
    """True: a switch. None or False: not written, only a place for the layout's own value."""
    source: str

    def words(self) -> tuple[str, ...]:
        """As it stands in the command line."""
        if self.value is None or self.value is False:
            return ()
        if self.value is True:
            return (f"--{self.name}",)
        if self.value.startswith("-"):
            # A parser would take the value for the next flag.
            return (f"--{self.name}={self.value}",)
        return (f"--{self.name}", self.value)


def plain_name(name: str, aliases: Mapping[str, str]) -> str:
    """One name for all the ways to write a flag: `tp`, `tensor_parallel_size`."""
    name = name.replace("_", "-")
    return aliases.get(name, name)


def with_args(
    flags: Iterable[Flag], args: Mapping[str, Scalar], *, aliases: Mapping[str, str] | None = None
) -> tuple[Flag, ...]:
    """The flags with a layout's `args`: in the place of the one of the same name, else at the
    end. `name = false` takes a flag away; `no-name = true` writes the negated one in its place.
    """
    asked: dict[str, Flag] = {}
    for written, value in args.items():
        name = plain_name(written, aliases or {})
        asked[_key(name)] = Flag(name, value if isinstance(value, bool) else str(value), LAYOUT)
    filled: list[Flag] = []
    for own in flags:
        theirs = asked.pop(_key(own.name), None)
        if theirs is not None and own.words() and own.words() != theirs.words():
            theirs = replace(theirs, source=f"{LAYOUT}, instead of {' '.join(own.words())}")
        filled.append(theirs or own)
    return (*filled, *asked.values())


def written(flags: Iterable[Flag]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of all flags, and for each word its source."""
    pairs = [(word, flag.source) for flag in flags for word in flag.words()]
    return tuple(word for word, _ in pairs), tuple(source for _, source in pairs)


def _key(name: str) -> str:
    return name.removeprefix("no-")
