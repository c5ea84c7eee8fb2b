"""Published figures and starting values that advice rests on, each with where it was read."""

from math import floor

START_CONTEXT = 4096
"""Tokens for prompt and answer where none are asked for: our choice, said as such."""
START_SEQUENCES = {
    "torch": (16, "the torch worker's own default"),
    "ipex": (16, "the worker's own default"),
    "ipex-llm": (12, "Intel's guide for two Arc A770"),
}
"""Most sequences that advice writes unasked, and whose number it is; else of `VLLM_SEQUENCES`."""
VLLM_SEQUENCES = (128, "Intel's starting value for vLLM in online use")
SPARE = 0.1
"""Of the room on CPUs, left for the kernel and the page cache where advice chooses how many."""

REPLICAS_SCALE = (
    "replicas exchange nothing: published for Intel cards, 1 / 1.9 / 3.58 times the tokens with "
    "1 / 2 / 4 of them (llm-scaler vllm/README 2.6)"
)
NO_EXCHANGE = (
    "one card a replica: no exchange after each layer, which published figures charge "
    "with 15.19 against 21.78 ms a token (8B on Arc A770, ipex-llm #12190)"
)
BOUND_TO_A_NODE = (
    "memory of its own node only: published, a dual Xeon 5218 went from about 4 to about 8 "
    "tokens/s when bound to one socket (llamafile #765)"
)
MANY_CARDS = (
    "each layer's exchange costs: four A770 were published as \"degraded due to the high "
    'communication overhead" (ipex-llm #12149)'
)
BATCHING = (
    "one instance that batches reads the weights once for all its sequences: published, 8 at once "
    "gave 170.2 tokens/s against 26.3 for one (IPEX, LLaMA2-7B INT8)"
)

ONE_CARD_MS = (100.48, 15.19)
TWO_CARDS_MS = (69.22, 21.78)
"""To the first token and for each further one: Llama-3.1-8B on one and on two Arc A770. The guide
that quotes them prints the second of each as tokens/s; the thread has both in ms."""
PAIR_SOURCE = "ipex-llm #12190"


def longest_for_two(
    one: tuple[float, float] = ONE_CARD_MS, two: tuple[float, float] = TWO_CARDS_MS
) -> int | None:
    """The longest answer in tokens that two cards finish first; None where they always do.

    An answer of n tokens takes first + (n - 1) x each.
    """
    sooner, slower = one[0] - two[0], two[1] - one[1]
    if slower <= 0:
        return None
    return max(0, 1 + floor(sooner / slower))


def pair_words() -> tuple[str, ...]:
    """What is published of one card against two, and the break-even by arithmetic."""
    longest = longest_for_two()
    return (
        f"published for an 8B model on Arc A770: first token after {ONE_CARD_MS[0]} ms on one "
        f"card, {TWO_CARDS_MS[0]} ms on two; then {ONE_CARD_MS[1]} ms a token on one, "
        f"{TWO_CARDS_MS[1]} ms on two ({PAIR_SOURCE})",
        f"by those figures two cards finish answers of up to {longest} tokens first, one card all "
        "longer ones (arithmetic)",
    )


CPU_ENGINES = {
    "torch": "comes with slotdeck, needs no special instructions, and has INT8 weights",
    "ipex": "Intel's kernels for BF16 on AVX-512 and AMX; a Python of its own",
    "vllm-cpu": "vLLM's paged cache and batching, splits a model over NUMA nodes, and loads hub "
    "ids itself; keeps a core for its API process",
    "ipex-llm": "vLLM 0.6.6 with low-bit weights; archived in January 2026",
}
GPU_ENGINES = {
    "vllm-xpu": "today's vLLM on Intel cards",
    "ipex-llm": "the engine that Intel's documents name for Arc A-series and Flex cards; archived "
    "in January 2026",
}
OLD_CARDS = ("Arc A-series", "Flex")
"""Families that Intel's own vLLM image sends to ipex-llm."""

FORM_WORDS = {
    "none": "plain weights",
    "int8": "INT8 weights",
    "sym_int8": "INT8 weights",
    "fp8": "FP8 weights",
    "sym_int4": "INT4 weights",
}
