"""From a layout to exact command lines: placement, model, driver and environment put together."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from engine.core.codec import to_builtins
from engine.core.command import SHELL, Command, Setting, shell_line, shown_argv, shown_env
from engine.core.engine_traits import EngineTraits
from engine.core.errors import ControlError
from engine.core.held import Held
from engine.core.layout import Instance, Layout
from engine.core.placement import Placement, Refusal, place
from engine.core.sizing import Needs, size
from engine.core.topology import Machine
from engine.drivers.driver import Order
from engine.drivers.registry import DRIVERS, driver_of
from engine.host.models import Model, find_model
from engine.service.launcher import inherited

TRAITS = {
    name: EngineTraits(
        driver.device,
        driver.tensor_parallel,
        driver.reserve_cores,
        driver.memory_share or EngineTraits().memory_share,
    )
    for name, driver in DRIVERS.items()
}
WORKER = Path(__file__).parent.parent / "worker" / "__main__.py"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What planning takes from outside: the user's environment and where models live."""

    environment: Mapping[str, str]
    bundled_models: Path


@dataclass(frozen=True, slots=True)
class Planned:
    """One instance ready to be started."""

    wish: Instance
    placement: Placement
    command: Command
    needs: Needs
    base: str


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
    answer = place(machine, layout, held=held, traits=TRAITS)
    wishes = {wish.name: wish for wish in answer.wishes}
    refusals = list(answer.refusals)
    planned: list[Planned] = []
    for placement in answer.placements:
        wish = wishes[placement.instance]
        try:
            planned.append(order_of(wish, placement, around, base=base, live=machine.live))
        except ControlError as error:
            refusals.append(Refusal(wish.name, f"{error.what}: {error.why}", error.do))
    return LayoutPlan(tuple(planned), tuple(refusals))


def order_of(
    wish: Instance, placement: Placement, around: Surroundings, *, base: str, live: bool
) -> Planned:
    """The command line of one placed wish. Raises ControlError when it cannot run here."""
    driver = driver_of(wish.engine)
    model = _model(wish, around, base=base, required=driver.needs_model and live)
    if live and wish.engine == "torch" and wish.python is None and find_spec("torch") is None:
        raise ControlError(
            what="The torch engine is not installed",
            why=f"{sys.executable} has no torch",
            do="Run pip install 'slotdeck[torch]', or name an interpreter that has it: python = …",
        )
    command = driver.command(
        Order(
            instance=wish,
            placement=placement,
            model=model.argument,
            served_name=served_name(wish.model),
            python=wish.python or sys.executable,
            worker=str(WORKER),
        )
    )
    command = replace(command, argv=(_beside(base, command.argv[0]), *command.argv[1:]))
    shell = {name: Setting(value, SHELL) for name, value in inherited(around.environment).items()}
    asked = {name: Setting(value, "layout") for name, value in wish.env.items()}
    context = wish.args.get("max-model-len")
    sequences = wish.args.get("max-num-seqs")
    command = replace(command, env={**shell, **command.env, **asked})
    if live:
        _require_program(command)
    return Planned(
        wish=wish,
        placement=placement,
        command=command,
        needs=size(
            model.config,
            model.weights_bytes,
            dtype=wish.dtype,
            weight_only=wish.weight_only,
            context=context if isinstance(context, int) else None,
            sequences=sequences if isinstance(sequences, int) else 1,
        ),
        base=base,
    )


def _beside(base: str, program: str) -> str:
    """A path such as `./server` is meant beside the layout file; a bare name is looked up."""
    return str(Path(base, program)) if "/" in program else program


def _require_program(command: Command) -> None:
    program = command.argv[0]
    if shutil.which(program, path=command.plain_env().get("PATH", os.defpath)) is None:
        raise ControlError(
            what="The engine's program cannot be started",
            why=f"there is no program {program!r}",
            do="Correct the path, or install the engine",
        )


def _model(wish: Instance, around: Surroundings, *, base: str, required: bool) -> Model:
    if not wish.model and not required:
        return Model("", None, None, None)
    try:
        model = find_model(wish.model, base=Path(base), bundled=around.bundled_models)
    except ControlError:
        if required:
            raise
        return Model(wish.model, None, None, None)
    if required and model.path is None:
        raise ControlError(
            what=f"Model {wish.model!r} is not on this machine",
            why=f"the {wish.engine} engine reads a local directory and downloads nothing",
            do="Name the directory that holds it",
        )
    return model


def served_name(model: str) -> str:
    """What clients call the model: the bundled name, the directory's name, or the hub id."""
    kind, colon, name = model.partition(":")
    if colon and kind == "bundled":
        return name
    return Path(model).name if model.startswith((".", "/", "~")) else model


def plan_json(plan: LayoutPlan, *, layout: str) -> dict[str, object]:
    """`slotdeck.plan/1`."""
    return {
        "schema": "slotdeck.plan/1",
        "layout": layout,
        "placements": [
            {
                **to_builtins(one.placement),
                "argv": list(shown_argv(one.command)),
                "env": shown_env(one.command),
                "shell": shell_line(one.command, one.placement.pus, one.placement.memory),
                "needs": to_builtins(one.needs),
            }
            for one in plan.planned
        ],
        "refusals": to_builtins(plan.refusals),
    }
