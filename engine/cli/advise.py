"""Propose layouts for a model on a machine, in order, with reasons; a part of `slotdeck plan`."""

import argparse
import asyncio
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from engine.cli import sources
from engine.cli.held import held_here
from engine.cli.text import DASH, folded, print_json, size
from engine.core.advice import advise
from engine.core.advising.trial import LENGTH, TOGETHER
from engine.core.advising.values import Advice, Ask, EngineFacts, PerReplica, Proposal, Rejection
from engine.core.codec import to_builtins
from engine.core.errors import ControlError, UsageError
from engine.core.layout import Layout, parse_layout
from engine.core.layout_edit import expect_text
from engine.core.likeness.fingerprint import fingerprint
from engine.core.topology import Machine
from engine.drivers.level_zero import generation
from engine.drivers.registry import DRIVERS, driver_of
from engine.host.device_root import DeviceRoot
from engine.host.models import find_model
from engine.host.paths import Paths
from engine.host.processor import read_processor
from engine.layout_files import NotSaved, Saving, read_layout, write
from engine.service.model_sizes import ModelSizes
from engine.service.orders import Surroundings
from engine.service.planning import TRAITS, plan_layout

_ONLY_HERE = ("goal", "engine", "context", "sequences", "write", "force")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of advice."""
    group = parser.add_argument_group("advice")
    group.add_argument(
        "--advise",
        metavar="MODEL",
        help="propose layouts for a model instead: a directory, bundled:NAME, or a hub id",
    )
    group.add_argument(
        "--goal",
        choices=("throughput", "latency"),
        help="what for: all users together (the default), or one answer",
    )
    group.add_argument("--engine", metavar="NAME", help="with this engine alone")
    group.add_argument(
        "--context", metavar="N", type=_count, help="tokens of a prompt with its answer"
    )
    group.add_argument(
        "--sequences", metavar="N", type=_count, help="requests at once on each replica"
    )
    group.add_argument(
        "--write", nargs=2, metavar=("N", "FILE"), help="write proposal N as a layout file"
    )
    group.add_argument("--force", action="store_true", help="also over a file that is there")


def wanted(asked: argparse.Namespace) -> bool:
    """Whether advice is asked for. Raises UsageError for both or neither."""
    if asked.advise is not None and asked.layout is not None:
        raise UsageError(
            what="Both a layout and --advise are given",
            why=f"{asked.layout} says what to plan, --advise asks what to plan",
            do="Leave one of them out",
        )
    if asked.advise is None and asked.layout is None:
        raise UsageError(
            what="There is nothing to plan",
            why="neither a layout file nor --advise MODEL is given",
            do="Write `slotdeck plan LAYOUT`, or `slotdeck plan --advise MODEL`",
        )
    lost = [name for name in _ONLY_HERE if asked.advise is None and getattr(asked, name)]
    if lost:
        raise UsageError(
            what=f"--{lost[0]} belongs to --advise",
            why="a layout file says itself what its instances are",
            do="Leave it out, or write `slotdeck plan --advise MODEL`",
        )
    return asked.advise is not None


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Print the advice, or write one proposal; 3 when nothing fits."""
    machine = sources.machine(asked)
    around = Surroundings(environment, Paths.of(environment).models)
    answer = advice(asked, machine, around, environment)
    if asked.write is not None:
        return _write(answer, machine, *asked.write, force=asked.force)
    if asked.json:
        print_json(advice_json(answer))
    else:
        print(describe(answer, shutil.get_terminal_size().columns))
    return 0 if answer.advice else 3


def facts() -> dict[str, EngineFacts]:
    """Of every engine that advice can speak of: a command of the user's own says nothing."""
    return {
        name: EngineFacts(name, TRAITS[name], driver.weight_only, driver.downloads)
        for name, driver in DRIVERS.items()
        if driver.needs_model
    }


def advice(
    asked: argparse.Namespace,
    machine: Machine,
    around: Surroundings,
    environment: Mapping[str, str],
) -> Advice:
    """The answer, each proposal also asked what its engine says to it."""
    engines = facts()
    if asked.engine is not None and driver_of(asked.engine).name not in engines:
        raise UsageError(
            what=f"There is no advice for engine {asked.engine!r}",
            why="it starts any program, of which nothing is known",
            do=f"Name one of: {', '.join(engines)}",
        )
    here = Path.cwd()
    model, is_local = _named(asked.advise, machine, here, around.bundled_models)
    cards = {gpu.index: family for gpu in machine.gpus if (family := generation(gpu))}
    answer = advise(
        machine,
        Ask(
            model=model,
            goal=asked.goal or "throughput",
            engine=asked.engine,
            context=asked.context,
            sequences=asked.sequences,
            is_local=is_local,
            cpu_flags=read_processor(DeviceRoot()).flags if machine.live else None,
            families=cards,
        ),
        engines,
        ModelSizes(here, around.bundled_models, _card_bytes(machine)),
        held=asyncio.run(held_here(Layout(name="", instances=()), machine, environment)),
    )
    return _asked_engines(answer, machine, around, str(here))


def _named(asked: str, machine: Machine, base: Path, bundled: Path) -> tuple[str, bool]:
    """The model as a layout shall say it, and whether it is a directory rather than a hub id."""
    try:
        found = find_model(asked, base=base, bundled=bundled)
    except ControlError:
        if machine.live or not asked:
            raise
        # For another machine it need not be here.
        return asked, True
    if found.path is None or asked.startswith("bundled:"):
        return asked, found.path is not None
    # A layout file may be kept anywhere, and the directory has to be found from there.
    return str(found.path), True


def _card_bytes(machine: Machine) -> int | None:
    sizes = [gpu.memory_bytes for gpu in machine.gpus if gpu.computes and gpu.memory_bytes]
    return min(sizes, default=None)


def _asked_engines(answer: Advice, machine: Machine, around: Surroundings, base: str) -> Advice:
    """What only an engine's own driver knows: combinations that fail, and what is missing here."""
    kept: list[Proposal] = []
    rejected = list(answer.rejected)
    for one in answer.advice:
        plan = plan_layout(machine, parse_layout(one.layout, name=one.title), around, base=base)
        if plan.refusals and not machine.live:
            refusal = plan.refusals[0]
            rejected.append(Rejection(one.title, refusal.why, refusal.do))
            continue
        told = [warning for at in plan.planned for warning in at.placement.warnings]
        known = {text.partition(" (so for ")[0] for text in one.warnings}
        added = [
            warning
            for warning in dict.fromkeys(told)
            if not any(_alike(warning, text) for text in known)
        ]
        # Something to install or to fetch does not make the layout a bad one.
        added += dict.fromkeys(f"not yet here: {each.why}. {each.do}" for each in plan.refusals)
        kept.append(replace(one, warnings=(*one.warnings, *added)))
    return replace(answer, advice=tuple(kept), rejected=tuple(rejected))


def _alike(one: str, other: str) -> bool:
    """Whether two warnings differ in their numbers alone."""

    def words(text: str) -> str:
        return "".join(" " if character.isdigit() else character for character in text)

    return words(one).split() == words(other).split()


def advice_json(answer: Advice) -> dict[str, object]:
    """`slotdeck.advice/1`."""
    return {"schema": "slotdeck.advice/1", **to_builtins(answer)}


def describe(answer: Advice, width: int = 80) -> str:
    """The proposals in lines; each layout may be copied as it stands."""
    lines = folded(f"{answer.model}, for {answer.goal}, on {answer.machine}", width, indent="  ")
    for engine in answer.engines:
        lines += folded(f"  {engine}", width, indent="    ")
    lines.append("  (--engine chooses another)")
    told: set[str] = set()
    for number, one in enumerate(answer.advice, 1):
        lines += ["", *folded(f"{number}. {one.title}", width, indent="   ")]
        lines += [f"   {line}" for line in one.layout.splitlines() if line]
        # What an earlier one said is not said again, so that the difference is seen.
        for reason in one.reasons:
            if reason not in told:
                lines += folded(f"   because {reason}", width, indent="     ")
        told |= set(one.reasons)
        lines += folded(f"   {_replicas(one)}", width, indent="     ")
        for warning in one.warnings:
            lines += folded(f"   warning: {warning}", width, indent="     ")
    for rejected in answer.rejected:
        lines += ["", *folded(f"not: {rejected.title}: {rejected.why}", width, indent="  ")]
        lines += folded(f"  do: {rejected.do}", width, indent="    ")
    lines.append("")
    for unknown in answer.unknown:
        lines += folded(f"not known: {unknown}", width, indent="  ")
    if answer.advice:
        lines += folded(
            "next: add --write 1 FILE, then `slotdeck up FILE`, and `slotdeck bench NAME` for "
            "each instance",
            width,
            indent="  ",
        )
    else:
        lines += folded("nothing fits this machine as it was asked for", width, indent="  ")
    return "\n".join(lines)


def _replicas(one: Proposal) -> str:
    each, args = one.per_replica, parse_layout(one.layout, name=one.title).instances[0].args
    many = f"{one.replicas} replicas, each" if one.replicas > 1 else "one replica:"
    parts = [f"{each.cores} core{'' if each.cores == 1 else 's'}, {_memory(each)}"]
    together, length = args.get(TOGETHER), args.get(LENGTH)
    if each.sequences is not None and length is not None:
        parts.append(f"room for {each.sequences:,} sequences of {length:,} tokens at once")
    if each.longest_context is not None and together is not None:
        parts.append(f"for up to {each.longest_context:,} tokens with {together:,} at once")
    unknown = "" if one.fits else "; whether it fits is not known"
    return f"{many} {'; '.join(parts)}{unknown}"


def _memory(each: PerReplica) -> str:
    if each.cards:
        plural = f"{each.cards} cards" if each.cards > 1 else "1 card"
        return f"{plural} of {size(each.card_bytes)}, {size(each.needs_bytes)} needed on each"
    if each.needs_bytes is None and each.memory_bytes is None:
        return f"memory {DASH}"
    return f"needs {size(each.needs_bytes)} of {size(each.memory_bytes)}"


# Writing one


def _write(answer: Advice, machine: Machine, number: str, file: str, *, force: bool) -> int:
    chosen = _numbered(answer, number)
    path = Path(file).expanduser().resolve()
    before = None
    if path.exists():
        if not force:
            raise NotSaved(
                what=f"{file} was not written",
                why="it is there already",
                do="Name another file, or add --force to replace it",
            )
        before = read_layout(str(path)).text
    write(Saving(path=path, before=before, after=_file(chosen, machine), is_own=True, notes=()))
    print(f"{file}: {chosen.title}. Next: slotdeck up {file}")
    return 0


def _numbered(answer: Advice, number: str) -> Proposal:
    many = len(answer.advice)
    if not many:
        first = answer.rejected[0] if answer.rejected else None
        raise _NothingFits(
            what=f"There is no layout of {answer.model} to write",
            why=first.why if first else "nothing fits this machine",
            do=first.do if first else "Ask for another model or machine",
        )
    if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= many:
        raise UsageError(
            what=f"There is no proposal {number!r}",
            why=f"this advice has 1 to {many}",
            do="Run it without --write to see them",
        )
    return answer.advice[int(number) - 1]


class _NothingFits(ControlError):
    exit_code = 3


def _file(chosen: Proposal, machine: Machine) -> str:
    """The layout with its reasons as comments; of this machine also with `[expect]`."""
    lines = [f"# {chosen.title}, proposed by `slotdeck plan --advise`."]
    for reason in chosen.reasons:
        first, *rest = folded(f"because {reason}", 96)
        lines += [f"# {first}", *(f"#   {line}" for line in rest)]
    parts = ["\n".join(lines), chosen.layout.rstrip("\n")]
    text = "\n".join(parts) + "\n"
    if machine.live:
        text += f"\n[expect]\n{expect_text(fingerprint(machine))}"
    parse_layout(text, name="the proposal")
    return text


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1 << 24:
        raise argparse.ArgumentTypeError(f"{text} is not from 1 to {1 << 24:,}")
    return value
