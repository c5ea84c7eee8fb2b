"""The console script: finds the verb, loads only that verb's file, and turns errors into words."""

import argparse
import errno
import importlib
import os
import shlex
import sys
from collections.abc import Coroutine, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, NoReturn

from engine import __version__
from engine.core.errors import ControlError, UsageError

if TYPE_CHECKING:
    from engine.reach import Reach

VERBS = {
    "topo": "draw the machine: packages, NUMA nodes, cores, what may be used",
    "gather": "record this machine for a bug report, a test, or planning elsewhere",
    "plan": "say what a layout would do: placements, reasons, commands; starts nothing",
    "export": "write the same placement for bash, systemd, compose or haproxy",
    "up": "make what runs equal to a layout file and wait until it is ready",
    "down": "stop instances",
    "status": "show the instances and how they do",
    "logs": "print an instance's log",
    "verify": "compare what was asked with what the kernel shows; repair what can be",
    "move": "place an instance on another slot, live where that can be",
    "undo": "take the newest change of placements back, or do it again",
    "save": "write what runs now into a layout file, keeping its comments",
    "bench": "measure instances or URLs under a steady load",
    "ab": "compare two layouts in pairs of blocks: better, worse or no difference",
    "tune": "search instances, cores and batches for the best figure on this machine",
    "doctor": "check what makes engines slow or wrong on this machine, and what to do about it",
    "engines": "list, install, check and remove engines, each with an environment of its own",
    "serve": "show the panel in a browser, on loopback, behind a token",
    "models": "list and prepare the bundled models",
    "service": "look after the background service: status, stop, log, reap",
    "demo": "start the demonstration layout, put load on it, open the panel",
    "relay": "join standard input and output to the service's socket, for --host",
}
REACHING = frozenset({"--host", "--ssh", "--remote", "--readonly"})
"""Options before the verb: which service, and how."""
THERE = frozenset({"status", "logs", "up", "down", "move", "undo", "verify", "save", "topo"})
"""Verbs that work with --host."""
LOOKING = THERE | {"plan"}
"""Verbs that work with --readonly: the service refuses what they would change."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
    for internal in ("SLOTDECK_HOST", "SLOTDECK_READONLY"):
        environment.pop(internal, None)  # only ever meant where it is asked for
    try:
        code = _run(words, environment)
        _flush()
    except ControlError as error:
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Somebody piped us into `head`: nothing is wrong.
        _silence()
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        _silence()
        _complain(
            ControlError(
                what="The answer could not be written",
                why=error.strerror or str(error),
                do="Free some space where the output goes",
            )
        )
        return 1
    return code


def _flush() -> None:
    """Write now, where an error can still be told, and not while Python exits."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _silence() -> None:
    """Whatever is still to be written goes nowhere."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.close(sink)


class _Parser(argparse.ArgumentParser):
    """Says what, why and what to do, as every other error does."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(
            what=f"{self.prog} was not understood",
            why=message,
            do=f"`{self.prog} --help` tells how it is written",
        )


def _run(words: list[str], environment: Mapping[str, str]) -> int:
    reach, rest = None, words
    if words and words[0].partition("=")[0] in REACHING:
        from engine.reach import leading  # like all that --help and the map can do without

        reach, rest = leading(words, environment)
        environment = reach.within(environment)
    verb = rest[0] if rest else None
    if verb in ("-h", "--help"):
        _parser().print_help()
        return 0
    if verb == "--version":
        print(f"slotdeck {__version__}")
        return 0
    if verb in VERBS:
        if reach is not None and "--help" not in rest and "-h" not in rest:
            _require_reaching(reach, verb, rest[1:])
        return _verb(verb, rest[1:], environment)
    if verb is None or verb.startswith("-") or os.path.exists(verb) or verb.endswith(".toml"):  # noqa: PTH110 - keeps pathlib out of --help
        open_panel(words)
    near = get_close_matches(str(verb).lower(), VERBS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        what=f"There is no command {verb!r}",
        why="it is neither a verb nor a layout file",
        do=f"{hint}`slotdeck --help` lists them",
    )


def _require_reaching(reach: "Reach", verb: str, words: list[str]) -> None:
    """Raises UsageError for a verb that works without the service."""
    if reach.host and verb not in THERE:
        raise _only_there(reach, verb, words)
    if reach.readonly and verb not in LOOKING:
        raise UsageError(
            what=f"{verb} cannot be read-only",
            why="it works without the service, which is what refuses changes",
            do=f"Leave --readonly out; it goes with {_listed(LOOKING)}, and the panel",
        )


def _only_there(reach: "Reach", verb: str, words: list[str]) -> UsageError:
    why = {
        "bench": "engines listen on the loopback of their own machine",
        "tune": "engines listen on the loopback of their own machine",
        "ab": "engines listen on the loopback of their own machine",
        "plan": "models and engines of the server are not here; the panel "
        f"(`slotdeck --host {reach.host} LAYOUT`) shows the plan before anything starts",
        "doctor": "it reads the files of the machine that it runs on; the panel's D asks there",
        "gather": "it reads the files of the machine that it runs on",
        "relay": "it is what --host runs there",
        "service": "it looks after the service of the machine that it runs on",
    }.get(verb, "it works on the machine that it runs on, without the service")
    return UsageError(
        what=f"{verb} does not work with --host",
        why=why,
        do=f"Run it there: `{shlex.join(['ssh', reach.host, reach.slotdeck, verb, *words])}`; "
        f"--host goes with {_listed(THERE)}, and the panel",
    )


def _listed(verbs: frozenset[str]) -> str:
    return ", ".join(verb for verb in VERBS if verb in verbs)


def _verb(verb: str, words: list[str], environment: Mapping[str, str]) -> int:
    module = importlib.import_module(f"engine.cli.{verb}")
    parser = _Parser(
        prog=f"slotdeck {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(parser)
    asked, unknown = parser.parse_known_args(words)
    if unknown:
        before = [word for word in unknown if word.split("=")[0] in ("--host", "--readonly")]
        hint = f" ({before[0]} stands before the verb)" if before else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    result = module.run(asked, environment)
    if isinstance(result, Coroutine):
        import asyncio  # a third of the time that a map of the machine takes

        result = asyncio.run(result)
    code: int = result
    return code


def open_panel(words: list[str]) -> None:
    """Become the panel: another program, so that nothing of it is loaded into a command."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", "tui", *words])


_REACHING = f"""before the verb or the layout:
  --host HOST  talk to the service of HOST through `ssh HOST slotdeck relay`; HOST as ssh takes
               it, and it has to work without a password. With the panel, and with
               {_listed(THERE)}.
               Of a layout the text is sent; its relative paths then begin at the home there
  --remote PATH  where slotdeck is there, e.g. ~/venv/bin/slotdeck (or SLOTDECK_REMOTE)
  --ssh PROGRAM  another ssh, e.g. "ssh -J jump -p 2222" (or SLOTDECK_SSH)
  --readonly   look, change nothing: the service refuses the rest"""


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<9} {text}" for name, text in VERBS.items())
    return argparse.ArgumentParser(
        prog="slotdeck",
        usage="slotdeck [--host HOST] [--readonly] [LAYOUT.toml | VERB …]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Places LLM inference engines on the sockets, NUMA nodes, cores and Intel "
        "GPUs of a server.\nWithout a verb it opens the panel; with a layout file it offers to "
        "apply it.",
        epilog=f"verbs:\n{verbs}\n\n{_REACHING}\n\n`slotdeck VERB "
        "--help` tells more. Exit codes: 0 done, 1 failed, 2 bad usage or layout,\n"
        "3 a placement is refused, 4 not ready in time, "
        "130 interrupted.",
    )


def _complain(error: ControlError) -> None:
    print(f"slotdeck: {error.what}", file=sys.stderr)
    print(f"  why: {error.why}", file=sys.stderr)
    print(f"  do:  {error.do}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
