"""What an instance becomes after an event, and what must be done about it: pure decisions."""

from dataclasses import dataclass, replace

from engine.core.status import State


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient we are with one instance; seconds."""

    restart: str = "on-failure"
    """never, on-failure or always."""
    ready_timeout_s: float = 120.0
    answer_timeout_s: float = 0.0
    """Ready, but without an answer for longer: restarted as after a crash. 0: never."""
    stop_grace_s: float = 10.0
    backoff_first_s: float = 1.0
    """Doubled after each failure in a row."""
    backoff_max_s: float = 60.0
    max_failures: int = 5
    """After this many failures in a row the instance is `failed`."""
    stable_after_s: float = 60.0
    """Ready for this long, failures are forgotten."""


@dataclass(frozen=True, slots=True)
class Life:
    """Where an instance is in its life; times in seconds of the caller's monotonic clock."""

    state: State
    since: float
    why: str
    restarts: int = 0
    failures: int = 0
    """In a row; reset when it has been ready for long enough."""
    retry_at: float = 0.0
    killed_at: float | None = None
    start_again: bool = False
    """While stopping: start once it has stopped (a move, or start asked meanwhile)."""
    fails_as: str = ""
    """While stopping because something went wrong: the reason to end as failed with."""
    try_again: bool = False
    """While stopping because something went wrong: restart after a pause, as after a crash."""


@dataclass(frozen=True, slots=True)
class StartAsked:
    """Somebody wants it to run."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Somebody wants it to stop."""

    then_start: bool = False


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    """The process could not be made; nothing of it is left."""

    why: str
    do: str = ""
    """What the reader can do about it."""


@dataclass(frozen=True, slots=True)
class Answered:
    """It generated a token."""


@dataclass(frozen=True, slots=True)
class Silent:
    """It runs, but what it was asked stays unanswered."""

    for_s: float


@dataclass(frozen=True, slots=True)
class Exited:
    """Its main process ended; `code` is None when nobody saw the exit code."""

    code: int | None
    """Negative: ended by that signal."""
    last_words: str = ""
    """The cause where it is known, else the last line of its log."""
    do: str = ""
    """What to do about a cause that is known."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed."""

    waits_for: str = ""
    """What an engine that is starting has not done yet, as far as that is known."""


Event = StartAsked | StopAsked | SpawnFailed | Answered | Silent | Exited | Tick


@dataclass(frozen=True, slots=True)
class Spawn:
    """Make the process."""


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process group to end (SIGTERM)."""


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process group (SIGKILL)."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """The main process has ended: end what is left of its group."""


Effect = Spawn | Terminate | Kill | Sweep

_KILL_AGAIN_S = 5.0
_NOT_MADE = "the process could not be made"


def step(now: float, life: Life, event: Event, policy: Policy) -> tuple[Life, tuple[Effect, ...]]:
    """What the instance becomes, and what the supervisor must do about it, in order."""
    match life.state, event:
        case ((State.STOPPED | State.FAILED | State.BACKOFF), StartAsked()):
            return _start(now, replace(life, failures=0), "starting"), (Spawn(),)
        case State.STOPPING, StartAsked():
            return replace(life, start_again=True), ()
        case ((State.STARTING | State.READY), StopAsked(then_start=again)):
            stopping = replace(
                life,
                state=State.STOPPING,
                since=now,
                why=f"asked to stop, has {policy.stop_grace_s:g} s",
                killed_at=None,
                start_again=again,
                fails_as="",
                try_again=False,
            )
            return stopping, (Terminate(),)
        case State.STOPPING, StopAsked(then_start=again):
            return replace(life, start_again=again, try_again=False), ()
        case State.BACKOFF, StopAsked(then_start=again):
            if again:
                return _start(now, replace(life, failures=0), "starting"), (Spawn(),)
            return _rest(now, life, State.STOPPED, "stopped by request while waiting to restart")
        case ((State.STOPPED | State.FAILED), StopAsked(then_start=True)):
            return _start(now, replace(life, failures=0), "starting"), (Spawn(),)
        case State.STOPPING, SpawnFailed() if life.start_again:
            return _start(now, replace(life, failures=0), "starting again"), (Spawn(),)
        case State.STARTING, SpawnFailed(why=why, do=do) if life.failures:
            # It was made before: what stands against it now may pass, as a full disk does.
            return _again(now, life, why or _NOT_MADE, f". {do}" if do else "", policy)
        case ((State.STARTING | State.STOPPING), SpawnFailed(why=why, do=do)):
            said = why or _NOT_MADE
            return _rest(now, life, State.FAILED, f"{said}. {do}" if do else said)
        case State.STARTING, Answered():
            return replace(life, state=State.READY, since=now, why="generated a token"), ()
        case State.STARTING, Tick(waits_for) if now - life.since > policy.ready_timeout_s:
            why = f"not ready within {policy.ready_timeout_s:g} s"
            why = f"{why}: {waits_for}" if waits_for else why
            return _give_up(now, life, why), (Terminate(),)
        case State.READY, Silent(for_s=for_s) if _is_too_silent(for_s, policy):
            # What was ready before the silence counts towards being stable, as in a crash.
            failures = 0 if now - for_s - life.since > policy.stable_after_s else life.failures
            silent = replace(life, failures=failures, try_again=True)
            return _give_up(now, silent, f"not answering for {for_s:.0f} s"), (Terminate(),)
        case State.READY, Tick() if life.failures and now - life.since > policy.stable_after_s:
            return replace(life, failures=0), ()
        case State.STOPPING, Tick():
            if life.killed_at is None and now - life.since > policy.stop_grace_s:
                why = f"did not end within {policy.stop_grace_s:g} s, killed"
                return replace(life, killed_at=now, why=why), (Kill(),)
            if life.killed_at is not None and now - life.killed_at > _KILL_AGAIN_S:
                why = "killed, but the kernel has not ended it yet"
                return replace(life, killed_at=now, why=why), (Kill(),)
            return life, ()
        case State.BACKOFF, Tick() if now >= life.retry_at:
            next_life = replace(life, restarts=life.restarts + 1)
            return _start(now, next_life, f"restart {next_life.restarts}"), (Spawn(),)
        case State.STOPPING, Exited():
            if life.start_again:
                wanted = replace(life, failures=0)  # somebody wants it: count from there
                return _start(now, wanted, "starting again"), (Sweep(), Spawn())
            if life.try_again:
                waiting, _ = _again(now, life, life.fails_as, "", policy)
                return waiting, (Sweep(),)
            if life.fails_as:
                ended, _ = _rest(now, life, State.FAILED, life.fails_as)
                return ended, (Sweep(),)
            how = "killed after its grace" if life.killed_at is not None else "stopped by request"
            ended, _ = _rest(now, life, State.STOPPED, how)
            return ended, (Sweep(),)
        case ((State.STARTING | State.READY), Exited() as exited):
            return _crashed(now, life, exited, policy)
        case _:
            return life, ()


def _start(now: float, life: Life, why: str) -> Life:
    return replace(
        life,
        state=State.STARTING,
        since=now,
        why=why,
        killed_at=None,
        start_again=False,
        fails_as="",
        try_again=False,
    )


def _is_too_silent(for_s: float, policy: Policy) -> bool:
    return policy.restart != "never" and 0 < policy.answer_timeout_s < for_s


def _give_up(now: float, life: Life, why: str) -> Life:
    """It is stopped because of that, not because somebody asked."""
    return replace(life, state=State.STOPPING, since=now, why=why, fails_as=why, killed_at=None)


def _rest(now: float, life: Life, state: State, why: str) -> tuple[Life, tuple[Effect, ...]]:
    resting = replace(
        life,
        state=state,
        since=now,
        why=why,
        killed_at=None,
        start_again=False,
        fails_as="",
        try_again=False,
    )
    return resting, ()


def _crashed(
    now: float, life: Life, exited: Exited, policy: Policy
) -> tuple[Life, tuple[Effect, ...]]:
    code, do = exited.code, f". {exited.do}" if exited.do else ""
    how = f"ended by signal {-code}" if do and code is not None and code < 0 else exit_words(code)
    why = f"{how}: {exited.last_words}" if exited.last_words else how
    # Servers are known that end in order after what did the work behind them has died.
    failed = code != 0 or bool(exited.do)
    wanted = policy.restart == "always" or (policy.restart == "on-failure" and failed)
    stable = life.state is State.READY and now - life.since > policy.stable_after_s
    life = replace(life, failures=0) if stable else life
    if not wanted:
        state = State.FAILED if failed else State.STOPPED
        ended, _ = _rest(now, replace(life, failures=life.failures + 1), state, f"{why}{do}")
        return ended, (Sweep(),)
    waiting, _ = _again(now, life, why, do, policy)
    return waiting, (Sweep(),)


def _again(
    now: float, life: Life, why: str, do: str, policy: Policy
) -> tuple[Life, tuple[Effect, ...]]:
    """One failure more: wait, longer each time, or give up."""
    failures = life.failures + 1
    if failures > policy.max_failures:
        why = f"{why} (gave up after {policy.max_failures} restarts in a row){do}"
        return _rest(now, replace(life, failures=failures), State.FAILED, why)
    pause = min(policy.backoff_max_s, policy.backoff_first_s * 2 ** min(failures - 1, 30))
    waiting = replace(
        life,
        state=State.BACKOFF,
        since=now,
        why=f"{why}; restart in {pause:g} s{do}",
        failures=failures,
        retry_at=now + pause,
        killed_at=None,
        fails_as="",
        try_again=False,
    )
    return waiting, ()


def exit_words(code: int | None) -> str:
    """An exit code in words; negative is a signal, None was seen by nobody."""
    if code is None:
        return "ended, exit code unknown"
    if code < 0:
        return f"ended by signal {-code}{_SIGNALS.get(-code, '')}"
    return f"ended with exit code {code}"


_SIGNALS = {
    4: " (illegal instruction)",
    6: " (abort)",
    7: " (bus error)",
    9: " (SIGKILL; the kernel does this when memory runs out)",
    11: " (segmentation fault)",
    15: " (SIGTERM)",
}
