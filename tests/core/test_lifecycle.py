"""The life of an instance, as stories and as laws over every state and event."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.core.lifecycle import (
    Answered,
    Effect,
    Event,
    Exited,
    Kill,
    Life,
    Policy,
    Silent,
    Spawn,
    SpawnFailed,
    StartAsked,
    StopAsked,
    Sweep,
    Terminate,
    Tick,
    exit_words,
    step,
)
from engine.core.status import State

PATIENCE = Policy(
    ready_timeout_s=120,
    answer_timeout_s=30,
    stop_grace_s=10,
    max_failures=2,
    stable_after_s=60,
)

Line = tuple[float, Event, State, tuple[Effect, ...]]


@dataclass(frozen=True)
class Story:
    """Seconds, event, the state after it, and what is to be done."""

    name: str
    lines: tuple[Line, ...]
    why: str
    policy: Policy = PATIENCE


START: Line = (0, StartAsked(), State.STARTING, (Spawn(),))
READY: Line = (5, Answered(), State.READY, ())
S = State

STORIES = [
    Story("starts and answers", (START, READY), "generated a token"),
    Story(
        "starts twice: one process",
        (START, (1, StartAsked(), S.STARTING, ()), READY, (6, StartAsked(), S.READY, ())),
        "generated a token",
    ),
    Story(
        "stops by request",
        (
            START,
            READY,
            (9, StopAsked(), S.STOPPING, (Terminate(),)),
            (10, StopAsked(), S.STOPPING, ()),
            (12, Tick(), S.STOPPING, ()),
            (13, Exited(0), S.STOPPED, (Sweep(),)),
            (14, StopAsked(), S.STOPPED, ()),
        ),
        "stopped by request",
    ),
    Story(
        "is killed after its grace, and again when the kernel is slow",
        (
            START,
            READY,
            (20, StopAsked(), S.STOPPING, (Terminate(),)),
            (30, Tick(), S.STOPPING, ()),
            (30.5, Tick(), S.STOPPING, (Kill(),)),
            (31, Tick(), S.STOPPING, ()),
            (36, Tick(), S.STOPPING, (Kill(),)),
            (37, Exited(-9), S.STOPPED, (Sweep(),)),
        ),
        "killed after its grace",
    ),
    Story(
        "without a grace it is killed at the next tick",
        (
            START,
            (1, StopAsked(), S.STOPPING, (Terminate(),)),
            (1.1, Tick(), S.STOPPING, (Kill(),)),
        ),
        "did not end within 0 s, killed",
        replace(PATIENCE, stop_grace_s=0),
    ),
    Story(
        "cannot be spawned",
        (START, (1, SpawnFailed("no such program"), S.FAILED, ()), (2, Tick(), S.FAILED, ())),
        "no such program",
    ),
    Story(
        "cannot be spawned, and nobody says why",
        (START, (1, SpawnFailed(""), S.FAILED, ())),
        "the process could not be made",
    ),
    Story(
        "is stopped while it cannot be spawned",
        (START, (1, StopAsked(), S.STOPPING, (Terminate(),)), (2, SpawnFailed("x"), S.FAILED, ())),
        "x",
    ),
    Story(
        "is moved while it cannot be spawned: it still goes to the new place",
        (
            START,
            (1, StopAsked(then_start=True), S.STOPPING, (Terminate(),)),
            (2, SpawnFailed("x"), S.STARTING, (Spawn(),)),
        ),
        "starting again",
    ),
    Story(
        "is not ready in time",
        (
            START,
            (120, Tick(), S.STARTING, ()),
            (121, Tick("no second token"), S.STOPPING, (Terminate(),)),
            (125, Exited(-15), S.FAILED, (Sweep(),)),
        ),
        "not ready within 120 s: no second token",
    ),
    Story(
        "is started while it stops",
        (
            START,
            READY,
            (9, StopAsked(), S.STOPPING, (Terminate(),)),
            (10, StartAsked(), S.STOPPING, ()),
            (11, Exited(0), S.STARTING, (Sweep(), Spawn())),
        ),
        "starting again",
    ),
    Story(
        "is started while it stops, and then not",
        (
            START,
            READY,
            (9, StopAsked(then_start=True), S.STOPPING, (Terminate(),)),
            (10, StopAsked(), S.STOPPING, ()),
            (11, Exited(0), S.STOPPED, (Sweep(),)),
        ),
        "stopped by request",
    ),
    Story(
        "crashes, waits, starts again, and is forgiven",
        (
            START,
            READY,
            (9, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
            (9.9, Tick(), S.BACKOFF, ()),
            (10, Tick(), S.STARTING, (Spawn(),)),
            (12, Answered(), S.READY, ()),
            (80, Tick(), S.READY, ()),
            (90, Exited(-11), S.BACKOFF, (Sweep(),)),
        ),
        "ended by signal 11 (segmentation fault); restart in 1 s",
    ),
    Story(
        "is forgiven even when no tick came between",
        (
            START,
            (1, Exited(1), S.BACKOFF, (Sweep(),)),
            (2, Tick(), S.STARTING, (Spawn(),)),
            (3, Answered(), S.READY, ()),
            (900, Exited(1), S.BACKOFF, (Sweep(),)),
        ),
        "ended with exit code 1; restart in 1 s",
    ),
    Story(
        "gives up after failures in a row, and a start counts anew",
        (
            START,
            (1, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
            (2, Tick(), S.STARTING, (Spawn(),)),
            (3, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
            (4, Tick(), S.BACKOFF, ()),
            (5, Tick(), S.STARTING, (Spawn(),)),
            (6, Exited(1, "boom"), S.FAILED, (Sweep(),)),
            (7, StopAsked(then_start=True), S.STARTING, (Spawn(),)),
            (8, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
        ),
        "ended with exit code 1: boom; restart in 1 s",
    ),
    Story(
        "cannot be spawned again after a crash: it waits longer, and comes back",
        (
            START,
            READY,
            (9, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
            (10, Tick(), S.STARTING, (Spawn(),)),
            (10, SpawnFailed("its port is held", "Free it"), S.BACKOFF, ()),
            (11, Tick(), S.BACKOFF, ()),
            (12, Tick(), S.STARTING, (Spawn(),)),
            (14, Answered(), S.READY, ()),
        ),
        "generated a token",
    ),
    Story(
        "cannot be spawned again after a crash, and gives up",
        (
            START,
            (1, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
            (2, Tick(), S.STARTING, (Spawn(),)),
            (2, SpawnFailed("its port is held", "Free it"), S.BACKOFF, ()),
            (4, Tick(), S.STARTING, (Spawn(),)),
            (4, SpawnFailed("its port is held", "Free it"), S.FAILED, ()),
        ),
        "its port is held (gave up after 2 restarts in a row). Free it",
    ),
    Story(
        "waits again where its port is held, and says so",
        (
            START,
            (1, Exited(1, "boom"), S.BACKOFF, (Sweep(),)),
            (2, Tick(), S.STARTING, (Spawn(),)),
            (2, SpawnFailed("its port is held", "Free it"), S.BACKOFF, ()),
        ),
        "its port is held; restart in 2 s. Free it",
    ),
    Story(
        "cannot be spawned, and is told what to do",
        (START, (1, SpawnFailed("no such program", "Install it"), S.FAILED, ())),
        "no such program. Install it",
    ),
    Story(
        "gives up with its reason",
        (START, (1, Exited(None, "boom"), S.FAILED, (Sweep(),))),
        "ended, exit code unknown: boom (gave up after 0 restarts in a row)",
        replace(PATIENCE, max_failures=0),
    ),
    Story(
        "waits no longer when somebody starts it",
        (
            START,
            (1, Exited(1), S.BACKOFF, (Sweep(),)),
            (1.1, StartAsked(), S.STARTING, (Spawn(),)),
        ),
        "starting",
    ),
    Story(
        "is stopped while it waits",
        (START, (1, Exited(1), S.BACKOFF, (Sweep(),)), (1.1, StopAsked(), S.STOPPED, ())),
        "stopped by request while waiting to restart",
    ),
    Story(
        "is moved while it waits",
        (
            START,
            (1, Exited(1), S.BACKOFF, (Sweep(),)),
            (1.1, StopAsked(then_start=True), S.STARTING, (Spawn(),)),
        ),
        "starting",
    ),
    Story(
        "ends well and stays so",
        (START, READY, (9, Exited(0), S.STOPPED, (Sweep(),)), (10, Tick(), S.STOPPED, ())),
        "ended with exit code 0",
    ),
    Story(
        "ends in order for a known cause, which is a failure",
        (START, (9, Exited(0, "it cannot compute", "Write int4"), S.BACKOFF, (Sweep(),))),
        "ended with exit code 0: it cannot compute; restart in 1 s. Write int4",
    ),
    Story(
        "ends well and is wanted always",
        (START, READY, (9, Exited(0), S.BACKOFF, (Sweep(),))),
        "ended with exit code 0; restart in 1 s",
        replace(PATIENCE, restart="always"),
    ),
    Story(
        "crashes and is wanted never again",
        (START, READY, (9, Exited(-6, "assert"), S.FAILED, (Sweep(),))),
        "ended by signal 6 (abort): assert",
        replace(PATIENCE, restart="never"),
    ),
    Story(
        "hangs, is ended, waits, and starts again",
        (
            START,
            READY,
            (40, Silent(30), S.READY, ()),
            (41, Silent(31), S.STOPPING, (Terminate(),)),
            (42, Silent(32), S.STOPPING, ()),
            (52, Tick(), S.STOPPING, (Kill(),)),
            (53, Exited(-9), S.BACKOFF, (Sweep(),)),
            (54, Tick(), S.STARTING, (Spawn(),)),
        ),
        "restart 1",
    ),
    Story(
        "hangs, and a stop meanwhile means no restart",
        (
            START,
            READY,
            (41, Silent(31), S.STOPPING, (Terminate(),)),
            (42, StopAsked(), S.STOPPING, ()),
            (43, Exited(0), S.FAILED, (Sweep(),)),
        ),
        "not answering for 31 s",
    ),
    Story(
        "hangs and is left alone where nobody wants restarts",
        (START, READY, (400, Silent(390), S.READY, ())),
        "generated a token",
        replace(PATIENCE, restart="never"),
    ),
    Story(
        "hangs and is left alone where no time was given",
        (START, READY, (400, Silent(390), S.READY, ())),
        "generated a token",
        replace(PATIENCE, answer_timeout_s=0),
    ),
    Story(
        "hangs again and again, and is given up",
        (
            START,
            READY,
            (41, Silent(31), S.STOPPING, (Terminate(),)),
            (42, Exited(0), S.BACKOFF, (Sweep(),)),
            (43, Tick(), S.STARTING, (Spawn(),)),
            (44, Answered(), S.READY, ()),
            (90, Silent(31), S.STOPPING, (Terminate(),)),
            (91, Exited(0), S.BACKOFF, (Sweep(),)),
            (93, Tick(), S.STARTING, (Spawn(),)),
            (94, Answered(), S.READY, ()),
            (130, Silent(31), S.STOPPING, (Terminate(),)),
            (131, Exited(0), S.FAILED, (Sweep(),)),
        ),
        "not answering for 31 s (gave up after 2 restarts in a row)",
    ),
    Story(
        "late words about an earlier process change nothing",
        (
            START,
            (1, StopAsked(), S.STOPPING, (Terminate(),)),
            (2, Answered(), S.STOPPING, ()),
            (3, Exited(0), S.STOPPED, (Sweep(),)),
            (4, Exited(0), S.STOPPED, ()),
            (5, Answered(), S.STOPPED, ()),
            (6, SpawnFailed("x"), S.STOPPED, ()),
        ),
        "stopped by request",
    ),
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_stories(story: Story) -> None:
    life = Life(State.STOPPED, 0, "not started yet")
    for at, event, state, effects in story.lines:
        life, done = step(at, life, event, story.policy)
        assert (at, life.state, done) == (at, state, effects)
    assert life.why == story.why


def test_pauses_double_up_to_their_limit() -> None:
    policy = Policy(max_failures=10_000, backoff_first_s=1, backoff_max_s=60)
    life, now = Life(State.STARTING, 0, ""), 0.0
    pauses = []
    for _ in range(2000):
        life, _ = step(now, life, Exited(1), policy)
        pauses.append(life.retry_at - now)
        now = life.retry_at
        life, _ = step(now, life, Tick(), policy)
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert life.restarts == 2000


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with exit code 0"),
        (None, "ended, exit code unknown"),
        (-9, "ended by signal 9 (SIGKILL; the kernel does this when memory runs out)"),
        (-64, "ended by signal 64"),
    ],
)
def test_exit_codes_in_words(code: int | None, words: str) -> None:
    assert exit_words(code) == words


events = st.one_of(
    st.builds(StartAsked),
    st.builds(StopAsked, st.booleans()),
    st.builds(SpawnFailed, st.sampled_from(["", "no"]), st.sampled_from(["", "do"])),
    st.builds(Answered),
    st.builds(Exited, st.none() | st.integers(-64, 255), st.sampled_from(["", "boom"])),
    st.builds(Tick),
    st.builds(Silent, st.floats(0, 1e6)),
)
policies = st.builds(
    Policy,
    restart=st.sampled_from(["never", "on-failure", "always"]),
    ready_timeout_s=st.floats(0, 1e6),
    answer_timeout_s=st.floats(0, 1e6),
    stop_grace_s=st.floats(0, 1e6),
    backoff_first_s=st.floats(0.001, 1e6),
    max_failures=st.integers(0, 10**9),
    stable_after_s=st.floats(0, 1e6),
)
times = st.floats(0, 1e9)
lives = st.builds(
    Life,
    st.sampled_from(State),
    times,
    st.sampled_from(["", "x"]),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    times,
    st.none() | times,
    st.booleans(),
    st.sampled_from(["", "x"]),
    st.booleans(),
)


@given(times, lives, events, policies)
@settings(max_examples=500)
def test_every_state_has_an_answer_to_every_event(
    now: float, life: Life, event: Event, policy: Policy
) -> None:
    after, effects = step(now, life, event, policy)
    assert after.state in State
    assert effects.count(Spawn()) <= 1
    if after.state is State.FAILED and life.state is not State.FAILED:
        assert after.why
    if life.state is State.STOPPING and isinstance(event, Exited):
        assert after.state is not State.STOPPING


class LifeMachine(RuleBasedStateMachine):
    """A supervisor that carries out what it is told, with one process that may misbehave."""

    policy = Policy(
        ready_timeout_s=20, answer_timeout_s=9, stop_grace_s=3, max_failures=2, stable_after_s=30
    )

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.life = Life(State.STOPPED, 0, "not started yet")
        self.running = False

    def feed(self, event: Event) -> None:
        self.life, effects = step(self.now, self.life, event, self.policy)
        for effect in effects:
            if isinstance(effect, Spawn):
                assert not self.running, "two processes"
                self.running = True
            if isinstance(effect, Terminate | Kill):
                assert self.running, "a signal for nobody"
            if isinstance(effect, Sweep):
                assert not self.running

    @rule(seconds=st.floats(0.1, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    @rule()
    def start(self) -> None:
        self.feed(StartAsked())

    @rule(again=st.booleans())
    def stop(self, again: bool) -> None:
        self.feed(StopAsked(again))

    @precondition(lambda self: self.running)
    @rule()
    def answer(self) -> None:
        self.feed(Answered())

    @precondition(lambda self: self.running)
    @rule(seconds=st.floats(0.1, 20))
    def hang(self, seconds: float) -> None:
        self.feed(Silent(seconds))

    @precondition(lambda self: self.running)
    @rule(code=st.sampled_from([None, 0, 1, -9]))
    def end(self, code: int | None) -> None:
        self.running = False
        before = self.life.state
        self.feed(Exited(code))
        assert not (before is State.STOPPING and self.life.state is State.STOPPING)

    @precondition(lambda self: self.running)
    @rule()
    def cannot_spawn(self) -> None:
        if self.life.state in (State.STARTING, State.STOPPING):
            self.running = False
            self.feed(SpawnFailed("no such program"))

    @invariant()
    def a_process_is_there_exactly_when_the_state_says_so(self) -> None:
        alive = self.life.state in (State.STARTING, State.READY, State.STOPPING)
        assert self.running == alive

    @invariant()
    def a_failure_has_a_reason(self) -> None:
        assert self.life.why


TestLifeMachine = LifeMachine.TestCase
TestLifeMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
