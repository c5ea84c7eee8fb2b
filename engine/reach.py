"""Where the service is: on this machine, or behind `ssh HOST slotdeck relay`."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.core.errors import UsageError

HOST_KEY, READONLY_KEY = "SLOTDECK_HOST", "SLOTDECK_READONLY"
"""How the command line hands its --host and --readonly to its verbs; never read from outside."""
SSH_KEY, REMOTE_KEY = "SLOTDECK_SSH", "SLOTDECK_REMOTE"
OPTIONS = {"--host": "me@server", "--ssh": "PROGRAM", "--remote": "PATH", "--readonly": ""}
"""On the command line, each with an example of its value."""
_SSH_OPTIONS = (
    *("-T", "-a", "-x"),
    # Asking for a password would draw over the panel, and once for every link.
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=10"),
    # A link that is cut without a word is noticed within 15 s.
    *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
    *("-o", "ClearAllForwardings=yes"),
)
_HOST = re.compile(r"[A-Za-z0-9_.\[:/][A-Za-z0-9_.@:%/\[\]+-]*")


@dataclass(frozen=True, slots=True)
class Reach:
    """What was asked for on the command line."""

    host: str = ""
    """Empty: this machine."""
    ssh: str = "ssh"
    """A program and perhaps its first words."""
    slotdeck: str = "slotdeck"
    """The program on the host."""
    readonly: bool = False

    def __post_init__(self) -> None:
        if self.host and (not _HOST.fullmatch(self.host) or "@-" in self.host):
            raise UsageError(
                what=f"{self.host!r} cannot be a host",
                why="ssh would take it for an option, or a shell for more than a name",
                do="Write it as `ssh` takes it, e.g. me@server or a name of ~/.ssh/config",
            )

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Reach":
        """As the command line has put it there."""
        return cls.named(
            environment,
            host=environment.get(HOST_KEY, ""),
            readonly=READONLY_KEY in environment,
        )

    @classmethod
    def named(
        cls,
        environment: Mapping[str, str],
        *,
        host: str = "",
        ssh: str = "",
        slotdeck: str = "",
        readonly: bool = False,
    ) -> "Reach":
        """What was named, and else what the environment names. Raises UsageError."""
        return cls(
            host=host,
            ssh=ssh or environment.get(SSH_KEY) or "ssh",
            slotdeck=slotdeck or environment.get(REMOTE_KEY) or "slotdeck",
            readonly=readonly,
        )

    def within(self, environment: Mapping[str, str]) -> dict[str, str]:
        """That environment for a verb, with nothing left of what stood there."""
        kept = without_reach(environment)
        kept |= {SSH_KEY: self.ssh, REMOTE_KEY: self.slotdeck}
        if self.host:
            kept[HOST_KEY] = self.host
        if self.readonly:
            kept[READONLY_KEY] = "1"
        return kept

    def argv(self, verb: str = "relay") -> list[str]:
        """The program that runs a verb there, such as the one that joins us to the service; its
        last word goes through a shell."""
        try:
            words = shlex.split(self.ssh)
        except ValueError as error:
            raise UsageError(
                what=f"{self.ssh!r} cannot be run",
                why=str(error),
                do='Name a program and its words: --ssh "ssh -J jump"',
            ) from None
        # The shell there is to expand ~ and nothing else.
        home, rest = (
            ("~/", self.slotdeck[2:]) if self.slotdeck[:2] == "~/" else ("", self.slotdeck)
        )
        return [*words, *_SSH_OPTIONS, "--", self.host, f"{home}{shlex.quote(rest)} {verb}"]


def without_reach(environment: Mapping[str, str]) -> dict[str, str]:
    """What a service or an engine may inherit."""
    ours = (HOST_KEY, READONLY_KEY, SSH_KEY, REMOTE_KEY)
    return {name: value for name, value in environment.items() if name not in ours}


def leading(words: Sequence[str], environment: Mapping[str, str]) -> tuple[Reach, list[str]]:
    """What stands before the verb or the layout, and the words from there on.

    Raises UsageError. Other options of the panel may stand between.
    """
    found: dict[str, str] = {}
    rest = list(words)
    readonly = False
    while rest and (name := rest[0].partition("=")[0]) in OPTIONS:
        word = rest.pop(0)
        if name == "--readonly":
            readonly = True
            continue
        value = word.partition("=")[2] if "=" in word else (rest.pop(0) if rest else "")
        if not value:
            raise UsageError(
                what=f"{name} says nothing",
                why="a value has to follow",
                do=f"Write it as {name} {OPTIONS[name]}",
            )
        found[name] = value
    if not found.get("--host") and ("--ssh" in found or "--remote" in found):
        raise UsageError(
            what="No host was named",
            why="--ssh and --remote say how to reach one",
            do="Add --host HOST",
        )
    return Reach.named(
        environment,
        host=found.get("--host", ""),
        ssh=found.get("--ssh", ""),
        slotdeck=found.get("--remote", ""),
        readonly=readonly,
    ), rest
