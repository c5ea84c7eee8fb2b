"""The `command` engine: any OpenAI-compatible server, from an argv template in the layout."""

import re
from collections.abc import Mapping

from engine.core.command import LAYOUT, Command
from engine.core.errors import LayoutError
from engine.core.metrics import MetricNames
from engine.drivers.driver import DTYPES, VLLM_METRICS, Conflict, Device, Order, check_settings
from engine.drivers.flags import with_args, written

METRICS = MetricNames(
    prompt_tokens=(
        *VLLM_METRICS.prompt_tokens,
        *("llamacpp:prompt_tokens_total", "sglang:prompt_tokens_total"),
    ),
    output_tokens=(
        *VLLM_METRICS.output_tokens,
        *("llamacpp:tokens_predicted_total", "sglang:generation_tokens_total"),
    ),
    running=(
        *VLLM_METRICS.running,
        *("llamacpp:requests_processing", "sglang:num_running_reqs"),
    ),
    waiting=(*VLLM_METRICS.waiting, "llamacpp:requests_deferred", "sglang:num_queue_reqs"),
    kv_cache_used=(*VLLM_METRICS.kv_cache_used, "sglang:token_usage"),
    ttft_s=(*VLLM_METRICS.ttft_s, "sglang:time_to_first_token_seconds"),
    itl_s=(*VLLM_METRICS.itl_s, "sglang:inter_token_latency_seconds"),
)
"""Also of llama.cpp (captured from 0.5.0) and of SGLang (read in 0.5.23)."""


class CommandDriver:
    """An argv template: "--port {port}"; it knows {model} {port} {cpus} {threads} {gpus} {tp}."""

    name = "command"
    device: Device = "any"
    tensor_parallel = True
    memory_share: float | None = None
    dtypes: tuple[str, ...] = DTYPES
    refused_args: Mapping[str, Conflict] = {}
    refused_env: Mapping[str, Conflict] = {}
    metric_names = METRICS
    health_path = "/health"
    reserve_cores = 0
    framework_bytes: int | None = None
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
