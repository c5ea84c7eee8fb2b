"""The `command` engine: any OpenAI-compatible server, from an argv template in the layout."""

import re
from collections.abc import Mapping

from engine.core.command import LAYOUT, Command
from engine.core.errors import LayoutError
from engine.drivers.driver import DTYPES, VLLM_METRICS, Conflict, Device, Order, check_settings
from engine.drivers.flags import with_args, written


class CommandDriver:
    """An argv template: "--port {port}"; it knows {model} {port} {cpus} {threads} {gpus} {tp}."""

    name = "command"
    device: Device = "any"
    tensor_parallel = True
    memory_share: float | None = None
    dtypes: tuple[str, ...] = DTYPES
    refused_args: Mapping[str, Conflict] = {}
    refused_env: Mapping[str, Conflict] = {}
    metric_names = VLLM_METRICS
    health_path = "/health"
    reserve_cores = 0
    binds_threads = False
    ready_timeout_s = 300.0
    stop_grace_s = 10.0
    needs_model = False
    downloads = True
    api_key_variable: str | None = None
    weight_only: tuple[str, ...] = ("none",)
    dummy_weights = False

    def command(self, order: Order) -> Command:
        """The template with its places filled; nothing passes through a shell."""
        instance, placement = order.instance, order.placement
        check_settings(self, instance)
        if not instance.command:
            raise LayoutError(
                what=f"Instance {instance.name} has no command",
                why='engine = "command" starts what `command` says',
                do='Add command = ["server", "--port", "{port}"]',
            )
        places = {
            "{model}": order.model,
            "{port}": str(placement.port),
            "{cpus}": str(placement.pus),
            "{threads}": str(len(placement.pus)),
            "{gpus}": ",".join(map(str, placement.gpus)),
            "{tp}": str(placement.tensor_parallel),
        }
        # In one go: a model's name that looks like a place stays as it is.
        place = re.compile("|".join(map(re.escape, places)))
        filled = [place.sub(lambda found: places[found[0]], word) for word in instance.command]
        words, sources = written(with_args((), instance.args))
        from_slot = f"{LAYOUT}, its places filled from the slot"
        template = (
            LAYOUT if word == before else from_slot
            for word, before in zip(filled, instance.command, strict=True)
        )
        return Command((*filled, *words), argv_sources=(*template, *sources))
