"""What every export is made from: the planned instances, with secrets as references."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from re import fullmatch, sub

from engine.core.command import LAYOUT, SHELL, Command, is_secret, shown_argv
from engine.core.cpuset import CpuSet
from engine.core.layout import Instance
from engine.core.placement import Placement
from engine.core.topology import Machine

OOM_SCORE = 300
"""As slotdeck starts engines where the layout says nothing: they go before what watches them."""
RESTARTS = 5
"""In a row, before an instance counts as failed."""
_MASK = "ZE_AFFINITY_MASK"
_REDACTED = "(redacted)"


@dataclass(frozen=True, slots=True)
class Word:
    """An argument or a variable's value."""

    text: str
    secret: str = ""
    """The name of the reader's own variable whose value follows the text; empty for none."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One planned instance and what its driver says of it."""

    wish: Instance
    placement: Placement
    command: Command
    served_name: str
    """What clients call the model; empty when the layout names none."""
    health_path: str
    stop_grace_s: float
    folders: tuple[str, ...] = ()
    """Folders of this machine that its command line reads."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One instance, ready to be written in any form."""

    wish: Instance
    placement: Placement
    served_name: str
    health_path: str
    stop_grace_s: float
    folders: tuple[str, ...]
    argv: tuple[Word, ...]
    env: Mapping[str, Word] = field(default_factory=dict)
    devices: tuple[str, ...] | None = ()
    """Its GPUs' render nodes; None where the machine does not tell them all."""
    counts_gpus: bool = False
    """Whether ZE_AFFINITY_MASK is ours: GPUs counted among all of the machine."""

    @property
    def name(self) -> str:
        return self.wish.name

    @property
    def confined_env(self) -> Mapping[str, Word]:
        """The environment where it can open its own GPUs only.

        Level Zero counts the GPUs that it can open, so its own are then the first ones.
        """
        mask = self.env[_MASK].text.split(",") if self.counts_gpus and self.devices else []
        if not mask or not all(index.isdecimal() for index in mask):
            return self.env
        return {**self.env, _MASK: Word(",".join(map(str, range(len(mask)))))}

    @property
    def oom_score(self) -> int:
        return OOM_SCORE if self.wish.oom_score_adj is None else self.wish.oom_score_adj

    @property
    def stop_grace_ms(self) -> int:
        """At least 1: several programs read 0 as "for ever"."""
        return max(1, round(self.stop_grace_s * 1000))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The reader's variables that it needs."""
        words = (*self.env.values(), *self.argv)
        return tuple(dict.fromkeys(word.secret for word in words if word.secret))

    def described(self) -> list[str]:
        """Who it is, where, and why there: lines for comments."""
        at, wish = self.placement, self.wish
        what = f"{self.name}: {wish.engine} engine"
        what += f", model {wish.model}" if wish.model else ""
        what += f", slot {at.slot}: PU {at.pus}"
        what += f", GPU {CpuSet(at.gpus)}" if at.gpus else ""
        what += f", memory {at.memory.policy} {at.memory.nodes}".rstrip()
        lines = [f"{what}, port {at.port}"]
        lines += [f"because {reason}" for reason in at.reasons]
        lines += [f"warning: {warning}" for warning in at.warnings]
        return [one_line(line) for line in lines]


@dataclass(frozen=True, slots=True)
class Export:
    """A whole layout, ready to be written in any form."""

    layout: str
    machine: str
    """In words."""
    version: str
    instances: tuple[Exported, ...]

    def header(self) -> list[str]:
        """Lines for the first comment; no date, so that the same input gives the same bytes."""
        return [
            one_line(f"Layout: {self.layout}"),
            f"Machine: {self.machine}",
            f"Made by slotdeck {self.version}: the same placement without slotdeck.",
        ]


def export_of(
    subjects: Sequence[Subject], machine: Machine, *, layout: str, version: str
) -> Export:
    """Put a plan into the form that all writers share."""
    references = _references(subjects)
    return Export(
        layout,
        machine_words(machine),
        version,
        tuple(_exported(one, references, machine) for one in subjects),
    )


def machine_words(machine: Machine) -> str:
    """The machine in one line."""
    counts = (
        ("package", machine.packages),
        ("NUMA node", machine.numa_nodes),
        ("core", machine.cores),
        ("PU", machine.pus.online),
        ("GPU", machine.gpus),
    )
    return ", ".join(f"{len(of)} {one}{'' if len(of) == 1 else 's'}" for one, of in counts)


def one_line(text: str) -> str:
    """For a comment: nothing in it can end the line or turn its direction."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def seconds(milliseconds: int) -> str:
    """A time span as systemd and compose read it."""
    whole = milliseconds % 1000 == 0
    return f"{milliseconds // 1000}s" if whole else f"{milliseconds}ms"


def flag_groups(words: Sequence[str], originals: Sequence[Word]) -> list[str]:
    """The written words in lines: the program, then each flag with what follows it."""
    lines: list[str] = []
    for written, original in zip(words, originals, strict=True):
        if len(lines) < 2 or original.text.startswith("-"):
            lines.append(written)
        else:
            lines[-1] += f" {written}"
    return lines


def reachable(host: str) -> str:
    """The address at which an instance on `host` is reached from its own machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}.get(host, host)


def commented(lines: Iterable[str], indent: str = "") -> list[str]:
    """Lines as comments of a file in which `#` begins one."""
    return [f"{indent}# {line}".rstrip() for line in lines]


def _exported(
    one: Subject, references: Mapping[tuple[str, str, str], str], machine: Machine
) -> Exported:
    name = one.wish.name
    env = {
        variable: Word("", references[name, variable, setting.value])
        if is_secret(variable) and setting.value
        else Word(setting.value)
        for variable, setting in one.command.env.items()
        if setting.source != SHELL
    }
    argv = tuple(
        Word(prefix, references[name, variable, secret]) if secret else Word(prefix)
        for prefix, variable, secret in _argv(one.command)
    )
    mask = one.command.env.get(_MASK)
    return Exported(
        wish=one.wish,
        placement=one.placement,
        served_name=one.served_name,
        health_path=one.health_path,
        stop_grace_s=one.stop_grace_s,
        folders=one.folders,
        argv=argv,
        env=env,
        devices=_devices(one.placement, machine),
        counts_gpus=mask is not None and mask.source not in (LAYOUT, SHELL),
    )


def _argv(command: Command) -> list[tuple[str, str, str]]:
    """Each word as what may be written, and for a secret also its variable and itself."""
    words: list[tuple[str, str, str]] = []
    flag = ""
    for word, shown in zip(command.argv, shown_argv(command), strict=True):
        prefix = shown.removesuffix(_REDACTED)
        secret = "" if word == shown else word[len(prefix) :]
        words.append((prefix if secret else word, _variable(prefix or flag), secret))
        flag = word
    return words


def _variable(flag: str) -> str:
    """`--api-key=` is API_KEY."""
    name = sub(r"[^A-Za-z0-9]+", "_", flag.strip("-=")).upper()
    return f"_{name}" if name[:1].isdigit() else name


def _references(subjects: Sequence[Subject]) -> dict[tuple[str, str, str], str]:
    """(instance, variable, secret) -> the reader's variable: the same name where all instances
    have the same secret, else one that begins with the instance's."""
    wanted: dict[tuple[str, str, str], None] = {}
    for one in subjects:
        for variable, setting in one.command.env.items():
            if setting.source != SHELL and is_secret(variable) and setting.value:
                wanted[one.wish.name, variable, setting.value] = None
        for _, variable, secret in _argv(one.command):
            if secret:
                wanted[one.wish.name, variable, secret] = None
    secrets: dict[str, set[str]] = {}
    for _, variable, secret in wanted:
        secrets.setdefault(variable, set()).add(secret)
    plain = {variable for variable, values in secrets.items() if len(values) == 1}
    references: dict[tuple[str, str, str], str] = {}
    taken = set(plain)
    for name, variable, secret in wanted:
        if variable in plain:
            references[name, variable, secret] = variable
            continue
        own = f"{_variable(name)}_{variable}"
        reference, count = own, 1
        while reference in taken:
            count += 1
            reference = f"{own}_{count}"
        taken.add(reference)
        references[name, variable, secret] = reference
    return references


def _devices(placement: Placement, machine: Machine) -> tuple[str, ...] | None:
    renders = {gpu.index: gpu.drm_render for gpu in machine.gpus}
    nodes = [renders.get(index) for index in placement.gpus]
    known = tuple(f"/dev/dri/{node}" for node in nodes if node and fullmatch(r"\w+", node))
    return known if len(known) == len(nodes) else None
