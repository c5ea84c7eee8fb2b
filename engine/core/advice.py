"""Layouts proposed for a model on a machine: the rules, in the order in which they decide.

1. Cards before CPUs where the model fits them; both are offered.
2. Replicas before tensor parallel: a split only where fewer cards (or nodes) do not hold it, and
   then the smallest lawful one.
3. On CPUs one replica per NUMA node; a package of several near nodes as one place comes first only
   for latency, other nodes are joined only where nothing smaller holds the model.
4. Low-bit weights before plain ones, where the engine has them and the files are plain.
5. `throughput` admits as many sequences as fit, `latency` one.

Every proposal was placed on this machine without a refusal; each figure has its source or is
computed from sizes. Nothing was measured.
"""

from collections.abc import Mapping

from engine.core.advising.cpu import offer_on_cpus
from engine.core.advising.facts import CPU_ENGINES, GPU_ENGINES, OLD_CARDS
from engine.core.advising.gpu import cards_to_use, offer_on_gpus
from engine.core.advising.trial import Trial
from engine.core.advising.values import Advice, Ask, EngineFacts, Rejection
from engine.core.placing.held import Held
from engine.core.placing.memory_room import Sizes, gib
from engine.core.topology import Machine


def advise(
    machine: Machine,
    ask: Ask,
    engines: Mapping[str, EngineFacts],
    sizes: Sizes,
    *,
    held: Held | None = None,
) -> Advice:
    """The layouts worth trying, the best first; deterministic, changes nothing."""
    trial = Trial(machine, ask, engines, sizes, held)
    if ask.context is not None and trial.longest is not None and ask.context > trial.longest:
        trial.reject(
            Rejection(
                "Any layout",
                f"a context of {ask.context:,} tokens is asked for, and the model was made for "
                f"{trial.longest:,}",
                f"Ask for {trial.longest:,} or fewer",
            )
        )
    else:
        _offer_all(trial)
    return Advice(
        model=ask.model,
        goal=ask.goal,
        machine=machine_words(machine),
        advice=tuple(trial.found),
        rejected=tuple(trial.rejected),
        unknown=tuple(_unknown(trial)),
        engines=tuple(
            engine_words(engine.name, cards=cards)
            for cards, engine in zip((True, False), _chosen(trial), strict=True)
            if engine is not None
        ),
    )


def engine_for_cpus(ask: Ask) -> str:
    """The default one: ours, or vLLM where the model has to be fetched."""
    return "torch" if ask.is_local else "vllm-cpu"


def engine_for_cards(ask: Ask, machine: Machine) -> str:
    """The default one: ipex-llm where every card of a known family is an old one."""
    known = [ask.families[gpu.index] for gpu in machine.gpus if gpu.index in ask.families]
    return "ipex-llm" if known and set(known) <= set(OLD_CARDS) else "vllm-xpu"


def _chosen(trial: Trial) -> tuple[EngineFacts | None, EngineFacts | None]:
    """For the cards and for the CPUs; None where there are none, or it computes elsewhere."""
    ask, engines = trial.ask, trial.engines
    for_cards = engines[ask.engine or engine_for_cards(ask, trial.machine)]
    for_cpus = engines[ask.engine or engine_for_cpus(ask)]
    on_cards = for_cards.traits.device != "cpu" and bool(cards_to_use(trial))
    return for_cards if on_cards else None, for_cpus if for_cpus.traits.device != "gpu" else None


def _offer_all(trial: Trial) -> None:
    for_cards, for_cpus = _chosen(trial)
    if for_cards is not None:
        offer_on_gpus(trial, for_cards)
    if for_cpus is not None:
        spanning = [for_cpus]
        if trial.ask.engine is None and for_cpus.name != "vllm-cpu":
            spanning.append(trial.engines["vllm-cpu"])
        offer_on_cpus(trial, for_cpus, spanning)
    if for_cards is None and for_cpus is None:
        trial.reject(
            Rejection(
                "A replica per card",
                f"the {trial.ask.engine} engine computes on GPUs, and no card is free here",
                "Leave --engine out, or free a card",
            )
        )


def _unknown(trial: Trial) -> list[str]:
    ask, machine = trial.ask, trial.machine
    lines = ["nothing was measured: the order is that of published rules and of arithmetic"]
    needs = trial.needs(trial.wish(next(iter(trial.engines)), "machine"))
    if needs.total_bytes is None:
        why = next((note for note in needs.notes if "unknown" in note), "its files are not here")
        lines.append(f"the model's size ({why}): whether it fits is not known, and not asked")
    else:
        lines.append("the runtime's part of what it needs is an estimate")
    if trial.is_packed:
        lines.append("whether the engine takes the low-bit form that the files are in")
    if ask.context is None:
        told = (
            "the engine's own limit holds"
            if trial.context is None
            else f"{trial.context:,} tokens are planned for"
        )
        lines.append(f"how long prompts and answers are: {told} (--context changes it)")
    if ask.cpu_flags is None:
        lines.append("whether the processor has AMX or AVX-512: BF16 is quick with them alone")
    if any(gpu.computes and gpu.memory_bytes is None for gpu in machine.gpus):
        lines.append("how much memory the cards have")
    if machine.numa_nodes and any(node.memory_bytes is None for node in machine.numa_nodes):
        lines.append("how much memory the NUMA nodes have")
    return lines


def engine_words(engine: str, *, cards: bool) -> str:
    """Why one would take this engine."""
    words = (GPU_ENGINES if cards else CPU_ENGINES).get(engine)
    told = f": {words}" if words else ""
    return f"on {'cards' if cards else 'CPUs'} {engine}{told}"


def machine_words(machine: Machine) -> str:
    """ "2 packages, 4 NUMA nodes, 128 cores, 2 GPUs of 16.0 GiB"."""
    parts = [
        _counted(len(machine.packages), "package"),
        _counted(len(machine.numa_nodes), "NUMA node"),
        _counted(len(machine.cores), "core"),
    ]
    if (memory := machine.total_memory_bytes) is not None:
        parts.append(f"{gib(memory)} of memory")
    cards = [gpu for gpu in machine.gpus if gpu.computes]
    if cards:
        sizes = sorted({gpu.memory_bytes for gpu in cards if gpu.memory_bytes is not None})
        of = f" of {' and '.join(map(gib, sizes))}" if sizes else ""
        parts.append(f"{_counted(len(cards), 'GPU')}{of}")
    return ", ".join(parts)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
