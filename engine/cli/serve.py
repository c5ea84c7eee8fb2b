"""The panel in a browser, on loopback, read-only unless told otherwise.

It prints an address with a random token; who has it may look, as long as this runs. From another
machine: `ssh -L 8700:127.0.0.1:8700 server`, then open the address here.
"""

import argparse
import ipaddress
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec

from engine.core.errors import ControlError, UsageError

_PORT = 8700


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("--port", type=int, default=_PORT, help=f"TCP port, else {_PORT}")
    parser.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1", help="else 127.0.0.1")
    parser.add_argument(
        "--allow-changes", action="store_true", help="start, stop and move from the page, too"
    )
    parser.add_argument(
        "--trust-network",
        action="store_true",
        help="listen on an address that is not loopback: the page and its token then cross the "
        "network in the clear",
    )


def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Become the server. Raises ControlError where it may not or cannot listen."""
    if not 0 < asked.port < 65536:
        raise UsageError(
            what=f"{asked.port} is no port",
            why="ports are 1 to 65535",
            do="Choose one with --port",
        )
    address = _address(asked.listen)
    if not address.is_loopback and not asked.trust_network:
        raise UsageError(
            what=f"The panel was not served on {asked.listen}",
            why="others on the network would reach it, and read it with its token on the way",
            do="Leave --listen out and come by `ssh -L`, or say --trust-network",
        )
    if find_spec("textual_serve") is None:
        raise ControlError(
            what="The panel cannot be served",
            why="textual-serve is not installed",
            do="Run `pip install 'slotdeck[serve]'`",
        )
    words = ["--listen", str(address), "--port", str(asked.port)]
    if asked.allow_changes:
        words.append("--allow-changes")
    if sys.stdout.isatty():
        kind = "with changes" if asked.allow_changes else "read-only"
        print(f"The panel, {kind}, until Ctrl+C. Who has this address has the panel:", flush=True)
    # Another program: nothing of a screen is loaded into a command.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "tui.web", *words])


def _address(written: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address("127.0.0.1" if written == "localhost" else written.strip("[]"))
    except ValueError:
        raise UsageError(
            what=f"{written!r} is no address",
            why="an IP address of this machine is asked for",
            do="Write --listen 127.0.0.1, or leave it out",
        ) from None
