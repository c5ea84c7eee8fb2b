"""Draws the README's pictures with the panel itself: `make screenshots`.

The machine is made up (`--synthetic` can make the same), and so are all figures on it: the
pictures say so. Nothing in them depends on a clock, so they change only when the panel does.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from textual.pilot import Pilot

from engine.core.status import (
    GpuStatus,
    Happening,
    InstanceStatus,
    Latency,
    LoadStatus,
    MemoryBinding,
    NodeStatus,
    Requests,
    Snapshot,
    State,
    TokenRates,
)
from engine.core.synthetic import parse_synthetic
from tests.tui.pilots import until
from tests.tui.scripted_control import AT, ScriptedControl, instance
from tui.app import SlotdeckApp

HERE = Path(__file__).parent
MADE_UP = "pack:2 numa:2 core:8 pu:2 gpu:1*24GiB mem:64GiB"
MACHINE = replace(parse_synthetic(MADE_UP), live=True)
"""As if it were here: on others nothing can be moved."""
TITLE = "slotdeck on a made-up machine, with made-up figures"
SIZE = (118, 34)
GIB = 1 << 30
SECONDS = 100
Play = Callable[[SlotdeckApp, Pilot[None]], Awaitable[None]]


def moment(at: int) -> Snapshot:
    """All that there is at one second: a replica on cores, one model on two cards, a start."""
    wave = math.sin(at / 9) + 0.5 * math.sin(at / 3.1)
    rows = (
        _ready("chat", "numa:0", "0-7", 41 + 4 * wave, 24.1 - wave, 7.6 + 0.2 * wave, port=8001),
        replace(
            _ready("coder", "gpu:2,3", "16-19", 62 + 6 * wave, 15.8 - wave, 1.4, port=8003),
            engine="vllm-xpu",
            model="Qwen2.5-Coder-14B",
            gpus=(2, 3),
            memory=MemoryBinding("bind", "2"),
        ),
        replace(
            instance("draft", "numa:3/core:0-3", "24-27", state=State.STARTING),
            why="loads its model",
            engine="vllm-cpu",
            model="Qwen2.5-0.5B-Instruct",
            memory=MemoryBinding("bind", "3"),
            port=8004,
            tokens_per_s=TokenRates(),
            ttft_ms=Latency(),
            itl_ms=Latency(),
            requests=Requests(),
            cpu_cores_used=3.9,
            pages_local=None,
            verified=None,
            unknown={"pages_local": "still loading", "itl_ms": "no requests yet"},
            since_s=6.0,
        ),
    )
    if 40 <= at < 48:  # its engine did not answer
        rows = (replace(rows[0], tokens_per_s=TokenRates(), itl_ms=Latency()), *rows[1:])
    busy = [0.02] * 64
    for pu in range(8):
        busy[pu] = min(1.0, 0.9 + 0.1 * math.sin(at + pu))
    for pu in (*range(16, 20), *range(24, 28)):
        busy[pu] = 0.5 + 0.45 * math.sin(at / 5 + pu)
    return Snapshot(
        sampled_at=str(at),
        revision=MACHINE.revision,
        instances=rows,
        numa_nodes=tuple(
            NodeStatus(node, used * GIB, (64 - used) * GIB, 0.99, 1.0)
            for node, used in enumerate((19, 2, 9, 5))
        ),
        gpus=tuple(
            GpuStatus(index, *(((0.86, 17 * GIB, 141.0)) if index > 1 else (0.0, 0, 22.0)))
            for index in range(4)
        ),
        pus_busy=tuple(busy),
        load=LoadStatus(("chat", "coder"), 4, 99, 480.0),
        happenings=(
            Happening(AT, "information", "chat: ready — generated a token"),
            Happening(AT, "information", "draft: starting — asked for"),
        ),
    )


def _ready(
    name: str, slot: str, pus: str, rate: float, itl_ms: float, cores: float, *, port: int
) -> InstanceStatus:
    return replace(
        instance(name, slot, pus),
        engine="vllm-cpu",
        model="Qwen2.5-7B-Instruct",
        why="generated a token",
        port=port,
        url=f"http://127.0.0.1:{port}",
        memory=MemoryBinding("bind", slot.partition(":")[2][:1]),
        tokens_per_s=TokenRates(rate * 6, rate * 4),
        ttft_ms=Latency(180.0 + rate, 320.0),
        itl_ms=Latency(itl_ms, itl_ms * 1.4),
        requests=Requests(4, 0),
        kv_cache_used=0.3 + rate / 400,
        cpu_cores_used=cores,
        rss_bytes=18 * GIB,
    )


async def board(app: SlotdeckApp, pilot: Pilot[None]) -> None:
    """The first thing that one sees."""


async def move(app: SlotdeckApp, pilot: Pilot[None]) -> None:
    """An instance on its way to another slot."""
    await pilot.press("m", "right")
    await until(pilot, lambda: "can go to" in _text(app))


async def history(app: SlotdeckApp, pilot: Pilot[None]) -> None:
    """One instance over time."""
    await pilot.press("d")
    await until(pilot, lambda: "KV cache" in _text(app))


PICTURES: dict[str, Play] = {"board": board, "move": move, "instance": history}


def _text(app: SlotdeckApp) -> str:
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


async def draw(name: str, play: Play) -> None:
    """Live through the seconds, then play, then keep the picture."""
    now = [0.0]
    control = ScriptedControl(
        MACHINE,
        [moment(0)],
        log_text="Loading weights: 100 %\nApplication startup complete.\n",
    )
    app = SlotdeckApp(control, clock=lambda: now[0])
    async with app.run_test(size=SIZE) as pilot:
        for at in range(1, SECONDS):
            now[0] = float(at)
            control.tell(moment(at))
            await until(pilot, lambda: app.view.snapshot is control.its_snapshots[-1])
        await until(pilot, lambda: "startup complete" in _text(app))
        await play(app, pilot)
        await pilot.pause()
        picture = app.export_screenshot(title=TITLE)
    (HERE / f"{name}.svg").write_text(picture)
    print(HERE / f"{name}.svg")


async def main() -> None:
    for name, play in PICTURES.items():
        await draw(name, play)


if __name__ == "__main__":
    asyncio.run(main())
