"""Is it ready? Its health path answers, and it has generated a token; and is it where we asked?"""

import asyncio
from collections.abc import Callable

from engine.core.cpuset import CpuSet, NodeSet
from engine.core.errors import ControlError
from engine.core.placement import Placement
from engine.drivers.openai_api import get, post_json
from engine.drivers.registry import driver_of
from engine.host.numa import process_policy
from engine.host.process import family, read_all, read_stat, thread_affinities
from engine.host.root import HostRoot
from engine.service.managed import Managed
from engine.service.orders import served_name

_FIRST_TOKEN_WITHIN_S = 60.0


async def wait_until_ready(managed: Managed, tell: Callable[[str], None]) -> None:
    """Return once the engine has generated a token; `tell` gets what it waits for."""
    driver = driver_of(managed.at.wish.engine)
    pause = 0.1
    while True:
        try:
            answer = await get(managed.url + driver.health_path, timeout_s=5.0)
            if answer.status == 200:
                tell("health answers, waiting for the first token")
                wish = managed.at.wish
                # A model of made-up weights may come without a tokenizer.
                prompt = [1] if wish.weights == "dummy" else "Hi"
                token = await post_json(
                    managed.url + "/v1/completions",
                    {"model": served_name(wish.model), "prompt": prompt, "max_tokens": 1},
                    timeout_s=_FIRST_TOKEN_WITHIN_S,
                    api_key=managed.api_key,
                )
                if token.status == 200:
                    return
                tell(f"health answers, but a completion gets HTTP {token.status}")
            else:
                tell(f"loading: health answers HTTP {answer.status}")
        except ControlError:
            tell("waiting for its port")
        await asyncio.sleep(pause)
        pause = min(1.0, pause * 1.5)


def differences(root: HostRoot, pid: int, placement: Placement) -> tuple[str, ...]:
    """What of the placement did not take: every thread's affinity and the memory policy.

    Engines may pin their own threads inside the slot; a thread outside of it is a difference.
    """
    found: list[str] = []
    outside: dict[str, int] = {}
    policies: dict[str, int] = {}
    unseen = 0
    asked = placement.memory
    bound = asked.policy in ("bind", "interleave", "preferred")
    for member in family(read_all(root), [pid]):
        for affinity in thread_affinities(root, member).values():
            if not affinity <= placement.pus:
                outside[str(affinity)] = outside.get(str(affinity), 0) + 1
        if not bound:
            continue
        got = process_policy(root, member)
        if got is None:
            unseen += read_stat(root, member) is not None
        elif not _same_policy(got, asked.policy, NodeSet.parse(asked.nodes)):
            policies[got] = policies.get(got, 0) + 1
    for affinity_text, threads in outside.items():
        many = _many(threads, "thread")
        found.append(f"{many} may run on PU {affinity_text}, asked {placement.pus}")
    for got, processes in policies.items():
        where = f"asked {asked.policy}:{asked.nodes}"
        found.append(f"memory policy of {_many(processes, 'process')} is {got}, {where}")
    if unseen:
        found.append(f"the kernel does not show the memory policy of {_many(unseen, 'process')}")
    return tuple(found)


def _many(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"1 {noun}" if count == 1 else f"{count} {plural}"


def _same_policy(got: str, policy: str, nodes: NodeSet) -> bool:
    # numa_maps writes "bind:0-1", "prefer:0", "prefer (many):0-1" or "interleave:0-1".
    name, _, text = got.rpartition(":")
    try:
        return name.startswith(policy[:6]) and CpuSet.parse(text) == nodes
    except ValueError:
        return False
