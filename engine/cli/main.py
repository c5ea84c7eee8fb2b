"""The console script: finds the verb, loads only that verb's file, and turns errors into words."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Coroutine, Mapping
from difflib import get_close_matches
from typing import NoReturn

from engine import __version__
from engine.core.errors import ControlError, UsageError

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
    "save": "write what runs now into a layout file, keeping its comments",
    "bench": "measure instances or URLs under a steady load",
    "engines": "list, install, check and remove engines, each with an environment of its own",
    "models": "list and prepare the bundled models",
    "service": "look after the background service: status, stop, log",
    "demo": "start the demonstration layout, put load on it, open the panel",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    environment = dict(os.environ)  # noqa: TID251 - the program's entry
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
    verb = words[0] if words else None
    if verb in ("-h", "--help"):
        _parser().print_help()
        return 0
    if verb == "--version":
        print(f"slotdeck {__version__}")
        return 0
    if verb in VERBS:
        return _verb(verb, words[1:], environment)
    if verb is None or verb.startswith("-") or os.path.exists(verb) or verb.endswith(".toml"):  # noqa: PTH110 - keeps pathlib out of --help
        open_panel(words)
    near = get_close_matches(str(verb).lower(), VERBS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        what=f"There is no command {verb!r}",
        why="it is neither a verb nor a layout file",
        do=f"{hint}`slotdeck --help` lists them",
    )


def _verb(verb: str, words: list[str], environment: Mapping[str, str]) -> int:
    module = importlib.import_module(f"engine.cli.{verb}")
    parser = _Parser(
        prog=f"slotdeck {verb}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(parser)
    asked = parser.parse_args(words)
    result = module.run(asked, environment)
    if isinstance(result, Coroutine):
        import asyncio  # a third of the time that a map of the machine takes

        result = asyncio.run(result)
    code: int = result
    return code


def open_panel(words: list[str]) -> None:
    """Become the panel: another program, so that nothing of it is loaded into a command."""
    os.execv(sys.executable, [sys.executable, "-P", "-m", "tui", *words])


def _parser() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {name:<9} {text}" for name, text in VERBS.items())
    return argparse.ArgumentParser(
        prog="slotdeck",
        usage="slotdeck [LAYOUT.toml] | slotdeck VERB …",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Places LLM inference engines on the sockets, NUMA nodes, cores and Intel "
        "GPUs of a server.\nWithout a verb it opens the panel; with a layout file it offers to "
        "apply it.",
        epilog=f"verbs:\n{verbs}\n\n`slotdeck VERB --help` tells more. Exit codes: 0 done, "
        "1 failed, 2 bad usage or layout,\n3 a placement is refused, 4 not ready in time, "
        "130 interrupted.",
    )


def _complain(error: ControlError) -> None:
    print(f"slotdeck: {error.what}", file=sys.stderr)
    print(f"  why: {error.why}", file=sys.stderr)
    print(f"  do:  {error.do}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
