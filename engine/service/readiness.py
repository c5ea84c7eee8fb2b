"""Is it ready? Its health path answers, and it has generated a token."""

import asyncio
from collections.abc import Callable

from engine.core.errors import ControlError
from engine.core.layout import Instance
from engine.core.status import State
from engine.drivers.openai_api import get, post_json
from engine.drivers.registry import driver_of
from engine.service.managed import Managed
from engine.service.orders import served_name

_FIRST_TOKEN_WITHIN_S = 60.0


async def became_ready(managed: Managed, mark: str, tell: Callable[[str], None]) -> bool:
    """Wait for its first token; False once it is not that start any more that is awaited."""
    waiting = asyncio.ensure_future(wait_until_ready(managed, tell))
    try:
        while managed.life.state is State.STARTING and managed.mark == mark:
            done, _ = await asyncio.wait([waiting], timeout=0.2)
            if done:
                waiting.result()
                return managed.mark == mark
    finally:
        waiting.cancel()
    return False


async def wait_until_ready(managed: Managed, tell: Callable[[str], None]) -> None:
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
            if answer.status in (200, 400, 404):
                tell("health answers, waiting for the first token")
                why_not = await _why_no_token(managed)
                if not why_not:
                    return
                tell(f"health answers, but {why_not}")
            else:
                tell(f"loading: health answers HTTP {answer.status}")
        await asyncio.sleep(pause)
        pause = min(1.0, pause * 1.5)


async def _why_no_token(managed: Managed) -> str:
    ranks = managed.at.placement.tensor_parallel
    try:
        token = await post_json(
            managed.url + "/v1/completions",
            first_request(managed.at.wish, ranks),
            timeout_s=_FIRST_TOKEN_WITHIN_S,
            api_key=managed.api_key,
        )
    except ControlError as error:
        hint = f"; its {ranks} ranks may wait for each other, see its log" if ranks > 1 else ""
        return f"its first token did not come: {error.why}{hint}"
    return "" if token.status == 200 else f"a completion gets HTTP {token.status}"


def first_request(wish: Instance, ranks: int) -> dict[str, object]:
    """The completion that makes an engine ready.

    The first token comes from the prompt's pass alone. Ranks of a tensor parallel engine talk to
    each other by other means in the passes after it, and it is there that they have been seen to
    hang: they have to give a second one.
    """
    # A model of made-up weights may come without a tokenizer.
    prompt = [1] if wish.weights == "dummy" else "Hi"
    tokens = 2 if ranks > 1 else 1
    return {"model": served_name(wish.model), "prompt": prompt, "max_tokens": tokens}
