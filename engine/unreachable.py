"""Why the service cannot be reached or understood, in words."""

from engine import __version__
from engine.core.errors import ControlError, ServiceUnreachable
from engine.reach import Reach
from engine.wire import PROTOCOL, Hello


class AnotherVersion(ControlError):
    """There is a service, and it speaks another protocol than this side."""


class Gone(ServiceUnreachable):
    """There is no service, or it has ended just now."""


def unreachable(why: str) -> Gone:
    """Nobody is there, or not any more."""
    return Gone(
        what="The service cannot be reached",
        why=why,
        do="Any `slotdeck up` or the panel starts it again; engines go on without it",
    )


def unreadable(theirs: Hello, why: str) -> ServiceUnreachable:
    """It answers what this side cannot read."""
    return ServiceUnreachable(
        what="The service's answer cannot be read",
        why=f"{why}; the service is {theirs}, this side {Hello(PROTOCOL, __version__)}",
        do="Use the same version on both sides: `slotdeck service stop`, then try again; "
        "engines go on",
    )


def another_version(theirs: Hello, reach: Reach) -> AnotherVersion:
    """It speaks another protocol: which side is the older one, and what to do."""
    stop = f"ssh {reach.host} {reach.slotdeck}" if reach.host else "slotdeck"
    stop = f"`{stop} service stop`; engines go on, and the next service takes them over"
    newer = theirs.protocol > PROTOCOL
    return AnotherVersion(
        what=f"The service is {'a newer' if newer else 'an older'} slotdeck than this side",
        why=f"the service is {theirs}, this side {Hello(PROTOCOL, __version__)}",
        do=f"Use slotdeck {theirs.version} here (after an upgrade: open the panel anew), or end "
        f"that service: {stop}"
        if newer
        else f"End the old service: {stop}",
    )


def shown(line: bytes) -> str:
    """Some foreign output as words that may be printed."""
    text = line[:80].decode(errors="replace").strip()
    return repr(text if text.isprintable() else ascii(text)[1:-1])
