"""Candidates tried on the machine: placed, sized, and told as a proposal or a rejection."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from engine.core.advising.facts import (
    FORM_WORDS,
    SPARE,
    START_CONTEXT,
    START_SEQUENCES,
    VLLM_SEQUENCES,
)
from engine.core.advising.values import (
    Ask,
    Candidate,
    EngineFacts,
    PerReplica,
    Proposal,
    Rejection,
    Try,
)
from engine.core.cpuset import NodeSet
from engine.core.layout import Instance, Layout, parse_layout
from engine.core.layout_edit import written
from engine.core.model.fit import CONTEXT_STEP
from engine.core.placement import Placement, Plan, place
from engine.core.placing.held import Held
from engine.core.placing.memory_room import Sizes, gib
from engine.core.sizing import Needs
from engine.core.topology import Machine

_MOST_SEQUENCES = 1 << 14
_MOST_CONTEXT = 1 << 24
LENGTH, TOGETHER = "max-model-len", "max-num-seqs"


class Trial:
    """One question on one machine; `found` and `rejected` grow in the order of the offers."""

    def __init__(
        self,
        machine: Machine,
        ask: Ask,
        engines: Mapping[str, EngineFacts],
        sizes: Sizes,
        held: Held | None = None,
    ) -> None:
        self.machine, self.ask, self.engines = machine, ask, engines
        self.held = held or Held({}, {})
        self.found: list[Proposal] = []
        self.rejected: list[Rejection] = []
        self._sizes = sizes
        self._traits = {name: facts.traits for name, facts in engines.items()}
        self._node_bytes = {node.os_index: node.memory_bytes for node in machine.numa_nodes}
        self._seen: set[object] = set()
        bare = sizes.needs(Instance(name="a", model=ask.model, engine=next(iter(engines))), 1)
        self.longest = bare.context
        """The model's longest context, None where it is not known."""
        self.context = ask.context
        if ask.context is None and self.longest is not None:
            self.context = min(START_CONTEXT, self.longest)

    def wish(self, engine: str, slot: str, *, form: str = "none", **more: object) -> Instance:
        """An instance of the model with the context asked for."""
        args = {} if self.context is None else {LENGTH: self.context}
        given = {"args": args, **more}
        wish = Instance(name="a", engine=engine, model=self.ask.model, slot=slot, weight_only=form)
        return self._with(msgspec.structs.replace(wish, **given), self.ask.sequences or 1)

    @property
    def is_packed(self) -> bool:
        """Whether the files are in a low-bit form already, so that no engine makes one of them."""
        plain = self.needs(self.wish("torch", "machine")).weights_bytes
        packed = self.needs(self.wish("torch", "machine", form="int8")).weights_bytes
        return plain is not None and (packed is None or packed >= plain)

    def words(self, form: str) -> str:
        """A form of weights as a title says it."""
        if form == "none" and self.is_packed:
            return "stored weights"
        return FORM_WORDS.get(form, form)

    def needs(self, wish: Instance, split: int = 1) -> Needs:
        """What that instance needs, over so many ranks."""
        return self._sizes.needs(wish, split)

    def offer(self, candidate: Candidate) -> bool:
        """Add it to what was found, or to what was rejected; whether it fits."""
        rejection: Rejection | None = None
        for one in candidate.tries:
            plan, wishes = self._as_many_as_fit(one.wishes)
            title = f"{candidate.title}{one.suffix}"
            if plan.refusals or not plan.placements:
                why = plan.refusals[0] if plan.refusals else None
                rejection = rejection or Rejection(
                    title,
                    why.why if why else "there is no place for it",
                    why.do if why else "Look at `slotdeck topo`",
                )
                continue
            if (short := self._short_ranks(wishes, plan, one.split)) is not None:
                rejection = rejection or Rejection(title, *short)
                continue
            proposal, key = self._proposal(candidate, one, wishes, plan)
            if key not in self._seen:
                self._seen.add(key)
                self.found.append(proposal)
            return True
        if rejection is not None and not candidate.quiet:
            self.reject(rejection)
        return False

    def reject(self, rejection: Rejection) -> None:
        """Tell once that something is not offered."""
        if all((one.why, one.do) != (rejection.why, rejection.do) for one in self.rejected):
            self.rejected.append(rejection)

    # Placing

    def _place(self, wishes: Iterable[Instance]) -> Plan:
        layout = Layout(name="advice", instances=tuple(wishes))
        return place(self.machine, layout, held=self.held, traits=self._traits, sizes=self._sizes)

    def _as_many_as_fit(self, wishes: tuple[Instance, ...]) -> tuple[Plan, tuple[Instance, ...]]:
        """Where not every node or card can hold a copy, `auto` finds those that can."""
        plan = self._place(wishes)
        if not plan.refusals or len(wishes) > 1:
            return plan, wishes
        wish, first = wishes[0], plan
        many = len(plan.placements)
        while many:
            gpus = 1 if wish.slot == "each gpu" else wish.gpus
            fewer = (
                msgspec.structs.replace(
                    wish, slot="auto", count=many if many > 1 else None, gpus=gpus
                ),
            )
            plan = self._place(fewer)
            if not plan.refusals:
                return plan, fewer
            many = min(many - 1, len(plan.placements))
        return first, wishes

    def _short_ranks(
        self, wishes: tuple[Instance, ...], plan: Plan, split: int
    ) -> tuple[str, str] | None:
        """Ranks on CPUs take their memory from one node each, which placement does not ask."""
        if split == 1:
            return None
        each = self.needs(plan.wishes[0], split).per_device_bytes
        room = self._room(plan, split)
        if each is None or room is None or each <= room:
            return None
        return (
            f"each of {split} ranks needs {gib(each)}, and its NUMA node has {gib(room)}",
            "Ask for a shorter context or fewer sequences, or spread it over more nodes",
        )

    # Sizes

    def _proposal(
        self, candidate: Candidate, one: Try, wishes: tuple[Instance, ...], plan: Plan
    ) -> tuple[Proposal, object]:
        room = self._room(plan, one.split)
        sequences = self._chosen_sequences(plan, one.split, room)
        if sequences != (self.ask.sequences or 1):
            larger = tuple(self._with(wish, sequences) for wish in wishes)
            replanned = self._place(larger)
            if not replanned.refusals:
                wishes, plan = larger, replanned
        title = f"{candidate.title}{one.suffix}"
        text = written(Layout(name=title, instances=wishes))
        parse_layout(text, name=title)
        wish, split = plan.wishes[0], self._split(plan, one.split)
        needs = self.needs(wish, split)
        each = self._each(needs, plan, one.split)
        cards = len(plan.placements[0].gpus)
        per_replica = PerReplica(
            cores=min(self._cores(at) for at in plan.placements),
            memory_bytes=None if cards else self._memory(plan, self._node_bytes),
            card_bytes=self._card_bytes(plan) if cards else None,
            cards=cards,
            needs_bytes=needs.per_device_bytes if cards else needs.total_bytes,
            longest_context=self._longest_context(wish, plan, one.split, room),
            sequences=self._sequences(wish, plan, one.split, room),
        )
        rule = (needs.rule,) if needs.rule else ()
        proposal = Proposal(
            title=title,
            layout=text,
            reasons=(*candidate.reasons, *one.reasons, *rule, *self._why_sequences(wish)),
            warnings=(*candidate.warnings, *gathered(plan.placements)),
            replicas=len(plan.placements),
            fits=None if each is None or room is None else True,
            per_replica=per_replica,
        )
        places = tuple((at.pus, at.gpus, at.memory) for at in plan.placements)
        return proposal, (places, wish.engine, wish.weight_only, one.split)

    def _with(self, wish: Instance, sequences: int) -> Instance:
        if self.context is None and self.ask.sequences is None:
            return wish
        return msgspec.structs.replace(wish, args={**wish.args, TOGETHER: sequences})

    def _chosen_sequences(self, plan: Plan, split: int, room: int | None) -> int:
        """How many the layout admits at once."""
        if self.ask.sequences is not None:
            return self.ask.sequences
        if self.ask.goal == "latency" or room is None:
            return 1
        wish, least = plan.wishes[0], room
        if not plan.placements[0].gpus:
            least = int(room * (1 - SPARE))
            now = self._memory(plan, self.held.free_bytes, smallest_node=split > 1)
            least = least if now is None else min(least, now)
        fit = self._sequences(wish, plan, split, least)
        most = START_SEQUENCES.get(wish.engine, VLLM_SEQUENCES)[0]
        return max(1, min(fit or 1, most))

    def _why_sequences(self, wish: Instance) -> tuple[str, ...]:
        """Whose number `max-num-seqs` is, where nobody asked for it."""
        many = wish.args.get(TOGETHER)
        if many is None or self.ask.sequences is not None:
            return ()
        if self.ask.goal == "latency":
            return (f"{TOGETHER} = 1: a second request waits (--sequences admits more)",)
        most, whose = START_SEQUENCES.get(wish.engine, VLLM_SEQUENCES)
        why = whose if many == most else "as many as fit at full length"
        return (f"{TOGETHER} = {many}: {why}",)

    def _split(self, plan: Plan, split: int) -> int:
        return max(split, plan.placements[0].tensor_parallel)

    def _each(self, needs: Needs, plan: Plan, split: int) -> int | None:
        """Bytes to compare with `_room`."""
        ranks = split > 1 or bool(plan.placements[0].gpus)
        return needs.per_device_bytes if ranks else needs.total_bytes

    def _room(self, plan: Plan, split: int) -> int | None:
        """Bytes for one replica, or one rank of it: the smallest that any replica has."""
        if plan.placements[0].gpus:
            card = self._card_bytes(plan)
            share = self._traits[plan.wishes[0].engine].memory_share
            return None if card is None else int(card * share)
        return self._memory(plan, self._node_bytes, smallest_node=split > 1)

    def _card_bytes(self, plan: Plan) -> int | None:
        used = {index for at in plan.placements for index in at.gpus}
        cards = [gpu.memory_bytes for gpu in self.machine.gpus if gpu.index in used]
        known = [size for size in cards if size is not None]
        return min(known) if known and len(known) == len(cards) else None

    def _memory(
        self, plan: Plan, size: Mapping[int, int | None], *, smallest_node: bool = False
    ) -> int | None:
        """Of the least lucky replica, each node shared out evenly among those on it."""
        nodes = [NodeSet.parse(at.memory.nodes) for at in plan.placements]
        rooms: list[int] = []
        for at, mine in zip(plan.placements, nodes, strict=True):
            shares: list[int] = []
            for node in mine:
                whole = size.get(node)
                if whole is None:
                    return None
                shares.append(whole // sum(node in other for other in nodes))
            if not shares:
                return None
            even = at.memory.policy == "interleave"
            rooms.append(
                min(shares) * (1 if smallest_node else len(shares))
                if even or smallest_node
                else sum(shares)
            )
        return min(rooms)

    def _cores(self, at: Placement) -> int:
        return sum(1 for core in self.machine.cores if core.pus & at.pus)

    def _longest_context(
        self, wish: Instance, plan: Plan, split: int, room: int | None
    ) -> int | None:
        most = self.longest if self.longest is not None else _MOST_CONTEXT
        fits = self._fitting(wish, plan, split, room, LENGTH)
        if fits is None or not fits(1):
            return None
        if fits(most):
            return most
        return largest(lambda step: fits(step * CONTEXT_STEP), most // CONTEXT_STEP) * CONTEXT_STEP

    def _sequences(self, wish: Instance, plan: Plan, split: int, room: int | None) -> int | None:
        fits = self._fitting(wish, plan, split, room, TOGETHER)
        return None if fits is None else largest(fits, _MOST_SEQUENCES)

    def _fitting(
        self, wish: Instance, plan: Plan, split: int, room: int | None, flag: str
    ) -> Callable[[int], bool] | None:
        """Whether it fits with this value of a flag; None where that cannot be known."""
        ranks = self._split(plan, split)
        if room is None or self._each(self.needs(wish, ranks), plan, split) is None:
            return None

        def fits(value: int) -> bool:
            asked = msgspec.structs.replace(wish, args={**wish.args, flag: value})
            each = self._each(self.needs(asked, ranks), plan, split)
            return each is not None and each <= room

        return fits


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, 0 where none does; more never needs less."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def gathered(placements: Sequence[Placement]) -> tuple[str, ...]:
    """The warnings of all replicas: of those that differ in their numbers alone the first."""
    alike: dict[str, list[str]] = {}
    for at in placements:
        for warning in at.warnings:
            alike.setdefault(re.sub(r"\d+", "0", warning), []).append(warning)
    return tuple(
        same[0] if len(same) == 1 else f"{same[0]} (so for {len(same)} replicas)"
        for same in alike.values()
    )
