"""What a new instance can be made of here: the engines, and the models on this machine."""

from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from engine.control import Catalogue, EngineOffered, ModelOffered
from engine.core.errors import ControlError
from engine.core.layout import Instance
from engine.drivers.driver import Driver
from engine.drivers.registry import DRIVERS
from engine.engines.environments import python_of
from engine.engines.recipes import NOT_OFFERED
from engine.host.models import BUNDLED, find_model
from engine.host.paths import Paths
from engine.service.orders import Surroundings

_MOST_MODELS = 200


def catalogue(around: Surroundings, wishes: Iterable[Instance]) -> Catalogue:
    """`wishes` are those of the instances that there are."""
    known = list(wishes)
    names = [f"bundled:{name}" for name in BUNDLED]
    names += [wish.model for wish in known if wish.model.startswith(("/", "~"))]
    names += _hub_models(around)
    models = tuple(_model(name, around) for name in list(dict.fromkeys(names))[:_MOST_MODELS])
    named = {wish.engine for wish in known if wish.python}
    engines = tuple(
        EngineOffered(
            driver.name, driver.device, driver.weight_only, _why_not(driver, around, named)
        )
        for driver in DRIVERS.values()
        if driver.name != "command"  # its command line stands in a layout
    )
    return Catalogue(engines, models, around.environment.get("HOME", "/"))


def _why_not(driver: Driver, around: Surroundings, named: set[str]) -> str:
    if driver.name in named:
        return ""  # an instance names an interpreter that has it
    if python_of(driver.name, Paths.of(around.environment).data) is not None:
        return ""
    if driver.name == "torch" and find_spec("torch") is not None:
        return ""
    if driver.name in NOT_OFFERED:
        return NOT_OFFERED[driver.name].why
    return f"it is not installed: slotdeck engines install {driver.name}"


def _hub_models(around: Surroundings) -> list[str]:
    """Snapshots in the cache of the model hub (HF_HUB_CACHE, HF_HOME/hub): their folders."""
    environment = around.environment
    home = Path(environment.get("HOME", "/"))
    told = environment.get("HF_HUB_CACHE") or (
        f"{environment['HF_HOME']}/hub" if environment.get("HF_HOME") else None
    )
    hub = Path(told) if told else home / ".cache/huggingface/hub"
    found: list[str] = []
    with suppress(OSError):
        for model in sorted(hub.glob("models--*"))[:_MOST_MODELS]:
            snapshots = [
                folder
                for folder in (model / "snapshots").glob("*")
                if (folder / "config.json").is_file()
            ]
            if snapshots:
                found.append(str(max(snapshots, key=lambda folder: folder.stat().st_mtime)))
    return found


def _model(name: str, around: Surroundings) -> ModelOffered:
    try:
        model = find_model(name, base=Path("/"), bundled=around.bundled_models)
    except ControlError as error:
        return ModelOffered(name, None, f"{error.why}: {error.do}")
    return ModelOffered(name, model.weights_bytes)
