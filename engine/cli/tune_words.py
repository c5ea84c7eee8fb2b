"""What a search found, in words: for a terminal, and as comments of the layout that it writes."""

from collections.abc import Sequence

import msgspec

from engine.bench.ab_plan import as_layout
from engine.bench.tune import UNITS, Tuning, figure
from engine.cli.text import folded, number
from engine.control import ApplyLayout, HeldWish
from engine.core.command import is_secret
from engine.core.layout import Instance
from engine.core.tuning.search import winner
from engine.core.tuning.space import Candidate


def evidence(tuning: Tuning) -> list[str]:
    """What a reader must know of the result, also years later in the layout file."""
    goal, load = tuning.wanted.goal, tuning.wanted.load
    standings = tuning.search.standings()
    best = winner(standings)
    lines = []
    if best is None:
        lines.append("No winner: nothing was measured often enough to tell it from the others.")
    else:
        plateau = [tuning.candidates[one.number] for one in standings if one.on_plateau]
        value = figure(best.value, goal)
        lines.append(f"{tuning.candidates[best.number]}: {number(value)} {UNITS[goal]}.")
        if len(plateau) > 1:
            chosen = tuning.candidates[best.number]
            others = "; ".join(str(one) for one in plateau if one != chosen)
            lines.append(
                f"Of {len(plateau)} that cannot be told from the best it is the simplest that "
                f"looks within 5 % of it; the others: {others}."
            )
        lines.append(
            "The best of the last stage is among these with 95 % probability; what went with the "
            "slower half before was not judged."
        )
    limits = ", ".join(
        f"{name} {limit * 1e3:g} ms" for name, limit in load.limits.told().items() if limit
    )
    lines.append(
        f"Searched for {goal}{f' within {limits}' if limits else ''}: {load.concurrency} streams, "
        f"{load.input_len} tokens in, {load.output_len} out, seed {load.seed}; "
        f"{tuning.search.rounds} rounds over {len(tuning.candidates)} candidates; "
        f"{tuning.why_ended}."
    )
    if tuning.unfinished:
        lines.append(
            f"Figures of a round that was broken off: {len(tuning.unfinished)}. They judge "
            "nothing, because those that came last in it have none."
        )
    if tuning.limited:
        lines.append(
            f"The load generator was a limit ({len(tuning.limited)} times, the first: "
            f"{tuning.limited[0]}), which all candidates share."
        )
    failed = [one for one in standings if one.value is None and one.rounds == 0]
    lines += [f"{tuning.candidates[one.number]}: {one.why}." for one in failed]
    return lines


def layout_text(
    chosen: Candidate, base: Instance, source: ApplyLayout, told: Sequence[str]
) -> str:
    """The winner as a file, its evidence as comments; secrets stay in the file they are in."""
    wish = chosen.wish(base)
    secret = sorted(name for name in (*wish.env, *wish.args) if is_secret(name))
    wish = msgspec.structs.replace(
        wish,
        env={name: value for name, value in wish.env.items() if name not in secret},
        args={name: value for name, value in wish.args.items() if name not in secret},
    )
    lines = [line for one in told for line in folded(one, 96)]
    lines += [f"{name} was left out, since it may be a secret: add it here." for name in secret]
    made = as_layout([HeldWish(wish, source.base)], name=f"{base.name}, tuned")
    return "".join(f"# {line}\n" for line in lines) + made.text
