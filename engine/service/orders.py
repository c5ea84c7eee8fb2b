"""The exact command line of one placed wish: model, driver, profile and environment together."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from engine.core.command import Command, engine_variables, merged
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.layout import Instance
from engine.core.placement import Placement
from engine.core.sizing import Needs
from engine.core.topology import Gpu, Machine
from engine.drivers.driver import Order
from engine.drivers.level_zero import affinity_mask
from engine.drivers.preloads import preload_settings
from engine.drivers.registry import driver_of
from engine.drivers.troubles import troubles
from engine.engines.environments import python_of
from engine.engines.recipes import NAME_PYTHON, NOT_OFFERED
from engine.host.device_root import DeviceRoot
from engine.host.libraries import find_libraries
from engine.host.models import Model, find_model
from engine.host.paths import Paths
from engine.host.processor import Processor, read_processor
from engine.service.launcher import inherited
from engine.service.model_sizes import ModelSizes

DUMMY = "dummy weights"
"""Said wherever an instance is shown that runs on made-up numbers."""
Find = Callable[[str], Model]
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


def order_of(
    wish: Instance,
    placement: Placement,
    machine: Machine,
    around: Surroundings,
    *,
    base: str,
    needs: Needs | None = None,
    find: Find | None = None,
) -> Planned:
    """The command line of one placed wish. Raises ControlError when it cannot run here; on a
    machine that is not this one, models and engines need not exist here. `find` finds a model by
    its word; whoever has many wishes of one model keeps what it has found. `needs` are read from
    the model's files where they are not given."""
    find = find or finder(around, base)
    driver = driver_of(wish.engine)
    live = machine.live
    if needs is None:
        # What an engine is told of its cache's size must not differ from what its plan has said.
        sizes = ModelSizes(Path(base), around.bundled_models)
        needs = sizes.needs(wish, placement.tensor_parallel)
    model = _model(wish, find, required=driver.needs_model and live)
    python = _python(wish, around, base=base, live=live)
    cards = tuple(gpu for gpu in machine.gpus if gpu.index in placement.gpus)
    processor = read_processor(DeviceRoot()) if live else Processor()
    order = Order(
        instance=wish,
        placement=placement,
        model=model.argument,
        served_name=served_name(wish.model),
        python=python,
        worker=str(WORKER),
        cards=cards,
        gpu_mask=_mask(machine, cards) if cards else None,
        nodes=_by_node(machine, placement.pus),
        kv_bytes=needs.kv_bytes,
        cpu_model=processor.model,
        cpu_flags=processor.flags,
        path=around.environment.get("PATH", os.defpath),
        has_tokenizer=model.has_tokenizer,
    )
    warnings, refusals = troubles(order, around.environment if live else None)
    if refusals:
        raise ControlError(
            what=f"Instance {wish.name} cannot run so", why=refusals[0].why, do=refusals[0].do
        )
    command = driver.command(order)
    layout_env = dict(wish.env)
    if wish.allocator is not None or wish.openmp is not None:
        if live:
            libraries = find_libraries(order.python, around.environment)
            loaded = preload_settings(
                wish, libraries, around.environment, binds_threads=driver.binds_threads
            )
            command = replace(command, env={**command.env, **loaded})
            if "LD_PRELOAD" in loaded:
                # What the user's shell preloads is in it, so that does not take its place.
                layout_env = {"LD_PRELOAD": loaded["LD_PRELOAD"].value, **layout_env}
        else:
            warnings = (*warnings, "which libraries are preloaded is known on the machine only")
    shell = {**inherited(around.environment), **engine_variables(around.environment)}
    env, notes = merged(shell, command.env, layout_env)
    argv = (_beside(base, command.argv[0]), *command.argv[1:])
    command = replace(command, argv=argv, env=env)
    if live:
        _require_program(command, wish.engine)
    if wish.weights == "dummy":
        warnings = (*warnings, f"{DUMMY}: speed and fit are real, answers mean nothing")
    # One that is placed again where it was has them already.
    placement = replace(
        placement,
        reasons=tuple(dict.fromkeys((*placement.reasons, *notes))),
        warnings=tuple(dict.fromkeys((*placement.warnings, *warnings))),
    )
    return Planned(wish=wish, placement=placement, command=command, needs=needs, base=base)


def _python(wish: Instance, around: Surroundings, *, base: str, live: bool) -> str:
    """The layout's interpreter, else that of `slotdeck engines install`, else our own."""
    if wish.python:
        return _beside(base, wish.python)
    installed = python_of(wish.engine, Paths.of(around.environment).data)
    if installed is not None:
        return str(installed)
    if live and wish.engine == "torch" and find_spec("torch") is None:
        raise ControlError(
            what="The torch engine is not installed",
            why=f"{sys.executable} has no torch",
            do="Run `slotdeck engines install torch`, or name an interpreter that has it: "
            "python = …",
        )
    return sys.executable


def _mask(machine: Machine, cards: tuple[Gpu, ...]) -> str:
    mask = affinity_mask(machine.gpus, [gpu.index for gpu in cards])
    if mask is None and machine.live:
        which = ", ".join(str(gpu.index) for gpu in cards)
        raise ControlError(
            what=f"GPU {which} cannot be used by an engine",
            why="its kernel driver is missing, or we may not open its render node",
            do="Look at `slotdeck topo`; join the group `render`, or load i915 or xe",
        )
    # Elsewhere we do not know what could be opened: the GPUs' own numbers are what it comes to.
    return mask if mask is not None else ",".join(str(gpu.index) for gpu in cards)


def _by_node(machine: Machine, pus: CpuSet) -> tuple[CpuSet, ...]:
    parts = (pus & node.cpus for node in machine.numa_nodes)
    return tuple(part for part in parts if part) or (pus,)


def _beside(base: str, program: str) -> str:
    """A path such as `./server` is meant beside the layout file; a bare name is looked up."""
    return str(Path(base, program).expanduser()) if "/" in program else program


def _require_program(command: Command, engine: str) -> None:
    program = command.argv[0]
    if shutil.which(program, path=command.plain_env().get("PATH", os.defpath)) is None:
        offered = NOT_OFFERED.get(engine)
        raise ControlError(
            what="The engine's program cannot be started",
            why=f"there is no program {program!r}",
            do=offered.do
            if offered
            else f"Run `slotdeck engines install {engine}`, or {NAME_PYTHON}",
        )


def finder(around: Surroundings, base: str) -> Find:
    """Finds models as a layout in this folder means them."""
    return partial(find_model, base=Path(base), bundled=around.bundled_models)


def _model(wish: Instance, find: Find, *, required: bool) -> Model:
    if not wish.model and not required:
        return Model("", None, None, None)
    try:
        model = find(wish.model)
    except ControlError:
        if required:
            raise
        return Model(wish.model, None, None, None)
    if required and model.path is None and not driver_of(wish.engine).downloads:
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
