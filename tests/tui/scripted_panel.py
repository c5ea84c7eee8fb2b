"""The real panel as a process, on a scripted control: `python tests/tui/scripted_panel.py`."""

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dataclasses import replace

from engine.control import Change, Offer
from engine.core.status import Happening, LoadStatus, State
from tests.tui.machines import HUGE, SERVER, SMALL, made, odd
from tests.tui.scripted_control import (
    ScriptedControl,
    instance,
    snapshot,
    two_instances,
    usual_offer,
)
from tui.terminal import terminal_kind

if TYPE_CHECKING:
    from tui.app import SlotdeckApp

MACHINES = {
    "small": SMALL,
    "server": SERVER,
    "middle": made(2, 2, 32, smt=2),
    "huge": HUGE,
    "odd": odd(),
}


class PlayedControl(ScriptedControl):
    """Carries out moves and stops on its own values, so that a hand at the keys sees them."""

    async def apply(self, offer: Offer) -> None:
        await super().apply(offer)
        now = self.its_snapshots[-1]
        instances = []
        for each in now.instances:
            moved = next(
                (p for p in (*offer.moves, *offer.starts) if p.instance == each.name), None
            )
            if moved:
                instances.append(
                    replace(
                        each, slot=moved.slot, pus=str(moved.pus), state=State.READY, unknown={}
                    )
                )
            elif each.name in offer.stops:
                instances.append(replace(each, state=State.STOPPED, why="stopped by you"))
            else:
                instances.append(each)
        load = None if now.load or offer.id != "load" else LoadStatus(("chat",), 1, 7, 600.0)
        told = Happening("2026-01-02T03:04:09Z", "information", f"applied {offer.id}")
        self.tell(
            replace(now, instances=tuple(instances), load=load, happenings=(*now.happenings, told))
        )

    async def wander(self, every_s: float, times: int) -> None:
        """New loads at a steady rate; the last one comes with a sign in the header."""
        dice = random.Random(7)
        for left in range(times, -1, -1):
            await asyncio.sleep(every_s)
            now = self.its_snapshots[-1]
            busy = tuple(
                min(1.0, max(0.0, (old or 0.0) + dice.uniform(-0.2, 0.2))) for old in now.pus_busy
            )
            load = now.load if left else LoadStatus(("a", "b", "c"), 3, 7, 600.0)
            self.tell(replace(now, pus_busy=busy, load=load))


def build(args: argparse.Namespace) -> PlayedControl:
    machine = MACHINES[args.machine]
    instances = two_instances()
    if args.machine in ("server", "middle", "huge"):
        half = len(machine.cores) // 2
        node = str(machine.numa_nodes[0].cpus)
        instances = (
            instance("chat", "numa:0", node),
            instance("coder", f"core:{half}", str(machine.cores[half].pus), restarts=1),
            replace(two_instances()[1], name="draft"),
        )

    def answer(change: Change) -> Offer:
        if args.stuck:
            os.write(1, b"\x1b]2;stuck\a")  # a title: it changes nothing on the screen
            time.sleep(60)
        return usual_offer(change, machine)

    return PlayedControl(machine, [snapshot(machine, instances)], answer=answer, pause_s=0.05)


def break_down(app: "SlotdeckApp") -> None:
    """A bug in a handler, with something in its hands that nobody may read."""

    def handler() -> None:
        token = "-".join(("sk", "very", "secret"))
        raise KeyError(f"{len(token)} letters")

    app.call_later(handler)


async def play(args: argparse.Namespace) -> int:
    from tui.__main__ import run
    from tui.app import SlotdeckApp
    from tui.widgets.schemes import scheme_for

    control = build(args)
    app = SlotdeckApp(
        control,
        ascii_only=args.ascii,
        readonly=args.readonly,
        terminal=sys.stdin.fileno(),
        scheme=scheme_for(args.theme, args.kind.colours),
        kind=args.kind,
    )
    if args.fault:
        asyncio.get_running_loop().call_later(0.5, break_down, app)
    if args.ignore_hangup:
        asyncio.get_running_loop().call_later(0.5, signal.signal, signal.SIGHUP, signal.SIG_IGN)
    wandering = asyncio.create_task(control.wander(args.every, args.times)) if args.every else None
    try:
        return await run(app, os.environ)  # noqa: TID251
    finally:
        sys.stdout.write(f"applied: {[offer.id for offer in control.applied]}\n")
        if wandering:
            wandering.cancel()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", default="small", choices=MACHINES)
    parser.add_argument("--ascii", action="store_true")
    parser.add_argument("--readonly", action="store_true")
    parser.add_argument("--ignore-hangup", action="store_true", help="no signal when it goes away")
    parser.add_argument("--fault", action="store_true", help="a bug ends it")
    parser.add_argument("--stuck", action="store_true", help="an offer blocks the event loop")
    parser.add_argument("--times", type=int, default=10**9, help="how many new loads")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between new loads")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--colours", default="auto")
    args = parser.parse_args()
    args.kind = terminal_kind(os.environ, asked=args.colours)  # noqa: TID251
    os.environ.update(args.kind.for_textual)  # noqa: TID251  before Textual is imported
    return asyncio.run(play(args))


if __name__ == "__main__":
    sys.exit(main())
