"""From a layout to a plan: replayed on this machine, sized, placed, each with its command line."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from engine.core.codec import to_builtins
from engine.core.command import explain, shell_line, shown_argv, shown_env
from engine.core.errors import ControlError, MachineDiffers
from engine.core.layout import Layout
from engine.core.placement import Refusal, place
from engine.core.placing.engine_traits import EngineTraits
from engine.core.placing.held import Held
from engine.core.replay import replay
from engine.core.topology import Machine
from engine.drivers.registry import DRIVERS, driver_of
from engine.service.model_sizes import ModelSizes
from engine.service.orders import Planned, Surroundings, finder, order_of

TRAITS = {
    name: EngineTraits(
        driver.device,
        driver.tensor_parallel,
        driver.reserve_cores,
        driver.binds_threads,
        driver.memory_share or EngineTraits().memory_share,
    )
    for name, driver in DRIVERS.items()
}


@dataclass(frozen=True, slots=True)
class LayoutPlan:
    """The answer to a layout."""

    planned: tuple[Planned, ...]
    refusals: tuple[Refusal, ...]


def plan_layout(
    machine: Machine,
    layout: Layout,
    around: Surroundings,
    *,
    base: str,
    held: Held | None = None,
) -> LayoutPlan:
    """Place every wish and write its command line; on a machine that is not this one, models
    and engines need not exist here."""
    for wish in layout.instances:
        driver = driver_of(wish.engine)
        if wish.weight_only not in driver.weight_only:
            raise ControlError(
                what=f"Instance {wish.name} cannot have weight_only = {wish.weight_only!r}",
                why=f"the {driver.name} engine has: {', '.join(driver.weight_only)}",
                do="Correct weight_only, or choose another engine",
            )
    try:
        replayed = replay(layout, machine)
    except MachineDiffers as differs:
        why = f"{differs.what}: {differs.why}"
        refused = (Refusal(wish.name, why, differs.do) for wish in layout.instances)
        return LayoutPlan((), tuple(refused))
    sizes = ModelSizes(Path(base), around.bundled_models, _card_bytes(machine))
    answer = place(machine, replayed.layout, held=held, traits=TRAITS, sizes=sizes)
    wishes = {wish.name: wish for wish in answer.wishes}
    find = cache(finder(around, base))
    refusals = list(answer.refusals)
    planned: list[Planned] = []
    for placement in answer.placements:
        wish = wishes[placement.instance]
        needs = sizes.needs(wish, placement.tensor_parallel)
        if note := replayed.notes.get(wish.name):
            placement = replace(placement, reasons=(note, *placement.reasons))
        try:
            planned.append(
                order_of(wish, placement, machine, around, base=base, needs=needs, find=find)
            )
        except ControlError as error:
            refusals.append(Refusal(wish.name, f"{error.what}: {error.why}", error.do))
    return LayoutPlan(tuple(planned), tuple(refusals))


def _card_bytes(machine: Machine) -> int | None:
    sizes = [gpu.memory_bytes for gpu in machine.gpus if gpu.computes and gpu.memory_bytes]
    return min(sizes, default=None)


def plan_json(plan: LayoutPlan, *, layout: str, explained: bool = False) -> dict[str, object]:
    """`slotdeck.plan/1`; with `explained` each placement tells who asked for every word."""
    return {
        "schema": "slotdeck.plan/1",
        "layout": layout,
        "placements": [
            {
                **to_builtins(one.placement),
                "argv": list(shown_argv(one.command)),
                "env": shown_env(one.command),
                "shell": _shell(one),
                "needs": to_builtins(one.needs),
                **({"explained": to_builtins(explain(one.command))} if explained else {}),
            }
            for one in plan.planned
        ],
        "refusals": to_builtins(plan.refusals),
    }


def _shell(one: Planned) -> str:
    at = one.placement
    return shell_line(one.command, at.pus, at.memory, at.limits)
