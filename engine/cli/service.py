"""Look after the background service: is it there, end it (engines go on), what did it say, and
end what earlier ones left over."""

import argparse
import sys
from collections.abc import Mapping, Sequence

from engine.cli.text import DASH, size, table
from engine.client import connect
from engine.core.errors import ControlError, ServiceUnreachable
from engine.host.paths import Paths
from engine.host.root import HostRoot
from engine.service.orphans import GRACE_S, Orphan, orphans_of, reap
from engine.starting import end_service
from engine.unreachable import AnotherVersion


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this verb's options."""
    parser.add_argument("what", choices=("status", "stop", "log", "reap"))
    parser.add_argument(
        "--yes", action="store_true", help="reap: end the processes without asking"
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=GRACE_S,
        metavar="S",
        help=f"reap: seconds between SIGTERM and SIGKILL ({GRACE_S:g})",
    )


async def run(asked: argparse.Namespace, environment: Mapping[str, str]) -> int:
    """Tell, end, or print."""
    paths = Paths.of(environment)
    if asked.what == "log":
        if paths.service_log.exists():
            print(paths.service_log.read_text(errors="replace"), end="")
        return 0
    if asked.what == "reap":
        return _reap(paths, yes=asked.yes, grace_s=asked.grace)
    try:
        client = await connect(start=False, environment=environment)
    except ServiceUnreachable:
        print("No service runs.")
        if asked.what == "status":
            _show_left_over(paths)
        return 0
    try:
        snapshot = await client.snapshot()
    except (AnotherVersion, ServiceUnreachable) as error:
        if asked.what != "stop":
            raise
        # One that cannot be understood is the very one that has to be ended.
        end_service(paths)
        print(f"stopped the service; its engines go on ({error.what}: {error.why})")
        return 0
    running = [one.name for one in snapshot.instances if one.pid]
    if asked.what == "stop":
        await client.stop_service()
        print(f"stopped the service; it leaves running: {', '.join(running) or 'nothing'}")
        return 0
    print(
        f"slotdeck {snapshot.service_version}, pid {snapshot.service_pid}, socket {paths.socket}, "
        f"running: {', '.join(running) or 'nothing'}"
    )
    for happening in snapshot.happenings:
        print(f"{happening.at} {happening.severity}: {happening.text}")
    _show_left_over(paths)
    return 0


def _show_left_over(paths: Paths) -> None:
    try:
        orphans = orphans_of(HostRoot(), paths)
    except ControlError as error:
        print(error)
        return
    if orphans:
        print("\nLeft over from earlier, and no instance's any more (`slotdeck service reap`):")
        print(orphan_table(orphans))


def orphan_table(orphans: Sequence[Orphan]) -> str:
    """A row for each process."""
    return table(
        ("PID", "NAME", "OF", "PU", "RSS", "SINCE"),
        [
            (
                str(one.pid),
                one.name,
                one.instance,
                str(one.pus) or DASH,
                size(one.rss_bytes),
                _ago(one.age_s),
            )
            for one in orphans
        ],
        left=4,
    )


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _reap(paths: Paths, *, yes: bool, grace_s: float) -> int:
    root = HostRoot()
    orphans = orphans_of(root, paths)
    if not orphans:
        print("Nothing is left over from earlier.")
        return 0
    print(orphan_table(orphans))
    many = "this process" if len(orphans) == 1 else f"these {len(orphans)} processes"
    if not yes:
        if not sys.stdin.isatty():
            print(f"Nothing was ended. `slotdeck service reap --yes` ends {many}.")
            return 0
        if input(f"End {many}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("Nothing was ended.")
            return 0
    # While it was asked some may have come to belong to an instance: an adopting service.
    still = set(map(_identity, orphans_of(root, paths)))
    left = reap(root, [one for one in orphans if _identity(one) in still], grace_s=grace_s)
    if left:
        raise ControlError(
            what="Not everything has ended",
            why=f"SIGKILL does not end pid {', '.join(str(one.pid) for one in left)}",
            do="The kernel holds it, mostly in a driver: look at dmesg",
        )
    print(f"ended {many}; none of it is left")
    return 0


def _identity(orphan: Orphan) -> tuple[int, int]:
    return orphan.pid, orphan.started_ticks
