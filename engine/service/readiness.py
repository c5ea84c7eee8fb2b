"""Is it ready? Its health path answers, and it has generated a token."""

import asyncio
from collections.abc import Awaitable, Callable

from engine.core.errors import ControlError
from engine.core.layout import Instance
from engine.core.status import State
from engine.drivers.openai_api import EngineRefused, Piece, get, post_json, stream
from engine.drivers.registry import driver_of
from engine.host.root import HostRoot
from engine.service.managed import Managed
from engine.service.neighbours import listener_on
from engine.service.orders import served_name
from engine.service.processes import leftovers

TOKEN_WITHIN_S = 60.0


async def became_ready(
    root: HostRoot, managed: Managed, mark: str, tell: Callable[[str], None]
) -> bool:
    """Wait for its first token; False once it is not that start any more that is awaited."""

    async def stranger() -> str:
        return await asyncio.to_thread(_in_its_place, root, managed, mark)

    waiting = asyncio.ensure_future(wait_until_ready(managed, tell, stranger))
    try:
        while managed.life.state is State.STARTING and managed.mark == mark:
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            if done:
                waiting.result()
                return managed.mark == mark
    finally:
        waiting.cancel()
    return False


def _in_its_place(root: HostRoot, managed: Managed, mark: str) -> str:
    """Who else has its port. An engine binds late, some after minutes of loading; what came first
    would answer, and pass for it. What a command starts may be a container, with its port another
    program's."""
    if managed.at.wish.engine == "command":
        return ""
    ours = leftovers(root, mark, managed.folder)
    return listener_on(root, managed.at.placement.port, but=ours)


async def wait_until_ready(
    managed: Managed, tell: Callable[[str], None], stranger: Callable[[], Awaitable[str]]
) -> None:
    """Return once the engine has generated a token; `tell` gets what it waits for."""
    driver = driver_of(managed.at.wish.engine)
    pause = 0.1
    while True:
        try:
            answer = await get(managed.url + driver.health_path, timeout_s=5.0)
        except ControlError:
            tell("waiting for its port")
        else:
            # Some servers have no such path (OpenVINO Model Server answers 400): a token decides.
            if holder := await stranger():
                tell(f"{holder} listens on its port and answers in its place: end that")
            elif answer.status in (200, 400, 404):
                tell("health answers, waiting for the first token")
                at = managed.at
                why_not = await why_no_token(
                    managed.url, at.wish, at.placement.tensor_parallel, api_key=managed.api_key
                )
                if not why_not:
                    return
                tell(f"health answers, but {why_not}")
            else:
                tell(f"loading: health answers HTTP {answer.status}")
        await asyncio.sleep(pause)
        pause = min(1.0, pause * 1.5)


async def why_no_token(
    url: str, wish: Instance, ranks: int, *, api_key: str | None, within_s: float = TOKEN_WITHIN_S
) -> str:
    """Nothing once the engine has given what is asked of it; after `within_s` at the latest."""
    came = 0

    def count(_piece: Piece) -> None:
        nonlocal came
        came += 1

    address, body = url + "/v1/completions", first_request(wish, ranks)
    hint = f"; its {ranks} ranks may wait for each other, see its log" if ranks > 1 else ""
    try:
        if ranks == 1:
            token = await post_json(address, body, timeout_s=within_s, api_key=api_key)
            return "" if token.status == 200 else f"a completion gets HTTP {token.status}"
        async with asyncio.timeout(within_s):
            await stream(
                address, body, on_piece=count, idle_timeout_s=2 * within_s, api_key=api_key
            )
    except EngineRefused as error:
        return f"a completion failed: {error.why}"
    except TimeoutError:
        which = ("its first token", "its second token", "its answer's end")[min(came, 2)]
        return f"{which} did not come within {within_s:g} s{hint}"
    except ControlError as error:
        return f"its first token did not come: {error.why}{hint}"
    return ""


def first_request(wish: Instance, ranks: int) -> dict[str, object]:
    """The completion that makes an engine ready.

    The first token comes from the prompt's pass alone. Ranks of a tensor parallel engine talk to
    each other by other means in the passes after it, and it is there that they have been seen to
    hang: they have to give a second one, whatever the first one was, and as a stream, which shows
    whether it was that one that did not come.
    """
    # A model of made-up weights may come without a tokenizer.
    prompt = [1] if wish.weights == "dummy" else "Hi"
    body: dict[str, object] = {"model": served_name(wish.model), "prompt": prompt}
    if ranks == 1:
        return {**body, "max_tokens": 1}
    return {**body, "max_tokens": 2, "ignore_eos": True, "stream": True}
