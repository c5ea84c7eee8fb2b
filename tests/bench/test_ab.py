"""The comparison's parts: the order of its blocks, what the hardware tells, what is restored."""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.bench import ab_saved, ab_texts
from engine.bench.ab import Asked, Session, even_load, shared_out
from engine.bench.ab_arms import ServiceArms
from engine.bench.ab_block import Up, pooled, total
from engine.bench.ab_clocks import HardwareWatch, spread
from engine.bench.ab_plan import Place, Plan, as_layout, layout_before, told_apart
from engine.bench.ab_report import outcome_text, running
from engine.bench.values import Load, Progress, Target
from engine.control import (
    ApplyLayout,
    Difference,
    HeldLayout,
    HeldWish,
    Offer,
    StopInstances,
    Verification,
    Verified,
)
from engine.core.comparing.design import Design
from engine.core.comparing.values import Arm, Block, Pair
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError, UsageError
from engine.core.layout import Instance, parse_layout
from engine.core.placement import Refusal
from engine.core.quantiles import summarize
from engine.core.status import GpuStatus, InstanceStatus, MemoryBinding, Snapshot, State
from engine.drivers import openai_api
from engine.host.machine import read_machine
from engine.host.root import HostRoot

LOAD = Load(output_len=3, input_len=8, duration_s=None, requests=2, seed=7)


@dataclass
class Ready:
    """Arms that are up already; remembers what it was asked."""

    targets: dict[str, Target]
    asked: list[tuple[str, bool]] = field(default_factory=list)

    async def ready(self, arm: str, *, fresh: bool) -> Up:
        self.asked.append((arm, fresh))
        return Up((self.targets[arm],), CpuSet([0]), cores=1)


def question(**changes: Any) -> Asked:
    design = Design.of(6, seed=3)
    return replace(Asked(Arm("one"), Arm("two"), design, LOAD, aa_pairs=2), **changes)


async def prompts(target: Target) -> list[str]:
    answer = (await openai_api.get(f"{target.url}/log", timeout_s=5)).json()
    texts = [one["prompt"] for one in answer["requests"] if one["body"].get("ignore_eos")]
    return list(dict.fromkeys(texts))


async def test_both_blocks_of_a_pair_get_the_same_prompts_and_a_against_a_fresh_ones(
    fake: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.bench.health.RUNQUEUE_LIMIT", 99)
    arms = Ready({"a": fake("--itl-ms", "1"), "b": fake("--itl-ms", "4")})
    told: list[str] = []
    session = Session(question(restart=True), arms, on_pair=lambda _, label: told.append(label))
    await session.run()
    assert told == ["A/A 1", "A/A 2", *(f"pair {n}" for n in range(1, 7))]
    order = "".join(arm for arm, _ in arms.asked)
    assert order[:4] == "aaaa"
    assert [order[4:][n : n + 2].upper() for n in range(0, 12, 2)] == list(
        Design.of(6, seed=3).orders()
    )
    assert {fresh for _, fresh in arms.asked} == {True}
    assert session.why_ended
    row = session.outcome().row("itl_ms")
    assert row is not None
    assert row.ratio is not None
    assert row.ratio > 1.2

    of_a, of_b = [await prompts(arms.targets[arm]) for arm in "ab"]
    assert set(of_b) <= set(of_a)
    assert len(set(of_a) - set(of_b)) * 6 == len(of_b) * 4, (
        "four A/A blocks with prompts of their own"
    )
    assert session.texts == ab_texts.Texts(4, 0)


async def test_texts_that_differ_are_told_and_are_no_error(fake: Callable[..., Target]) -> None:
    arms = Ready({"a": fake(), "b": fake("--tokens", "3")})
    session = Session(question(max_time_s=1e-9), arms)
    await session.run()
    assert "would not end within" in (session.why_ended or "")
    assert session.texts is None

    session = Session(question(aa_pairs=0), arms)
    await session.run()
    texts = session.texts
    assert texts is not None
    assert (texts.same, texts.differing, texts.steady) == (0, 4, True)
    assert texts.first is not None
    assert texts.first.token == 4
    told = outcome_text(session.outcome(final=True), texts)
    assert "warning: at temperature 0 the arms write different texts for 4 of 4 prompts" in told
    assert "'The capital of France is', from token 4 on: A writes" in told
    assert "A, asked again, wrote the same as before" in told
    answer = ab_saved.comparison_json(session.outcome(final=True), texts)
    assert isinstance(answer["texts"], dict)
    assert (answer["texts"]["differing"], answer["texts"]["first"]["token"]) == (4, 4)

    differs = ab_texts.Differs("x", "same until " + "a" * 99, "same until b", 3)
    assert differs.beginning(differs.a) == repr("same until " + "a" * 24 + "…")
    assert differs.beginning(differs.b) == "'same until b'"


def test_texts_are_the_same_however_a_stream_is_cut() -> None:
    count = len(ab_texts.PROMPTS)
    cut, whole = ((" a", " b", " c"),) * count, ((" a b", " c"),) * count
    same = ab_texts.compared(cut, whole)
    assert (same.same, same.differing) == (count, 0)
    assert same.told().endswith(f"both arms write the same for {count} of {count} prompts.")
    for other, token in (((" a", " x"), 2), ((" a b",), 3), ((" a b c", " d"), 4)):
        first = ab_texts.compared(cut, (other,) * count).first
        assert first is not None
        assert first.token == token
    doubtful = replace(ab_texts.compared(cut, ((),) * count), steady=False)
    assert "but A, asked again, wrote another text as well" in doubtful.told()


def test_a_load_is_the_same_for_both_arms_whatever_their_instances() -> None:
    load = even_load(replace(LOAD, concurrency=5, requests=9), (4, 1))
    assert (load.concurrency, load.requests) == (8, 12)
    one, four = shared_out(load, 1), shared_out(load, 4)
    assert (one.concurrency, one.requests, four.concurrency, four.requests) == (8, 12, 2, 3)
    assert even_load(LOAD, (1, 1)) == LOAD


def test_pooled_figures_claim_no_percentile_and_no_part_for_the_whole() -> None:
    many, few = summarize([0.1] * 60), summarize([0.4] * 20)
    assert pooled([many]) is many
    both = pooled([many, few])
    assert (both.count, both.p90) == (80, None)
    assert both.p50 == pytest.approx(0.175)
    assert pooled([summarize([]), few]).p50 == 0.4
    assert (total([1.0, 2.0]), total([1.0, None]), total([])) == (3.0, None, None)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def cpu_files(khz: int, throttles: int, heat: int, microjoules: int) -> dict[str, str]:
    return {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": str(khz),
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": str(throttles),
        "sys/class/hwmon/hwmon0/name": "coretemp",
        "sys/class/hwmon/hwmon0/temp1_input": str(heat),
        "sys/class/powercap/intel-rapl:0/name": "package-0",
        "sys/class/powercap/intel-rapl:0/energy_uj": str(microjoules),
        "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "100000000",
        "sys/class/powercap/intel-rapl:1/name": "package-1",
        "sys/class/powercap/intel-rapl:0:0/name": "core",
    }


def measuring(phase: str = "measuring") -> Progress:
    return Progress(phase, 0.0, ())


async def test_hardware_is_read_while_it_measures_and_counters_wrap(tmp_path: Path) -> None:
    now = itertools.count(0.0, 2.0)
    watch = HardwareWatch(
        CpuSet([0]), frozenset({0}), root=HostRoot(tmp_path), clock=lambda: next(now)
    )
    write(tmp_path, cpu_files(9_000_000, 3, 99_000, 0))
    watch.on_progress(measuring("warming up"))
    write(tmp_path, cpu_files(3_000_000, 5, 50_000, 60_000_000))
    assert (watch.throttled, watch.clocks_mhz) == (None, {})
    fresh = HardwareWatch(
        CpuSet([0]), frozenset({0}), root=HostRoot(tmp_path), clock=lambda: next(now)
    )
    fresh.on_progress(measuring())
    write(tmp_path, cpu_files(2_000_000, 5, 60_000, 90_000_000))
    fresh.on_progress(measuring())
    write(tmp_path, cpu_files(1_000_000, 6, 55_000, 10_000_000))
    await fresh.finish()
    assert fresh.clocks_mhz == {"cpu": 2000.0}
    assert (fresh.temperature_c, fresh.throttled) == (60.0, True)
    assert fresh.watts == pytest.approx((30 + 20) / 4), "the counter began again at 100 J"


async def test_what_the_hardware_does_not_tell_stays_unknown(tmp_path: Path) -> None:
    watch = HardwareWatch(CpuSet([0]), frozenset({0}), root=HostRoot(tmp_path))
    watch.on_progress(measuring())
    await watch.finish()
    assert (watch.clocks_mhz, watch.temperature_c) == ({}, None)
    assert (watch.throttled, watch.watts) == (None, None)
    assert spread(range(256), 16) == list(range(0, 256, 16))


async def test_gpus_add_their_clock_and_without_their_power_there_are_no_watts(
    tmp_path: Path,
) -> None:
    write(tmp_path, cpu_files(3_000_000, 5, 50_000, 60_000_000))

    async def read() -> list[GpuStatus]:
        return [GpuStatus(1, frequency_mhz=2400, temperature_c=70), GpuStatus(0, power_w=9)]

    now = itertools.count(0.0, 2.0)
    watch = HardwareWatch(
        CpuSet([0]),
        frozenset({0}),
        (1,),
        read_gpus=read,
        root=HostRoot(tmp_path),
        clock=lambda: next(now),
    )
    watch.on_progress(measuring())
    await asyncio.sleep(0)
    await watch.finish()
    assert watch.clocks_mhz == {"cpu": 3000.0, "gpu:1": 2400}
    assert (watch.temperature_c, watch.watts) == (70, None)


class Refusing:
    """Of the service only what a start needs: it has no room for both arms at once."""

    def __init__(self, *, engine: str = "command", differs: str = "") -> None:
        self.names: tuple[str, ...] = ()
        self.applied: list[str] = []
        self.engine, self.differs = engine, differs

    async def verify(self, names: tuple[str, ...]) -> Verification:
        found = (Difference(self.differs, "port 8001 of its own", "another program has it", ""),)
        return Verification(tuple(Verified(name, False, found) for name in names))

    async def offer(self, change: ApplyLayout | StopInstances) -> Offer:
        if isinstance(change, StopInstances):
            return Offer("stop", stops=change.names)
        refused = (Refusal("b", "numa:0 has 1 GiB left", "Wait"),) if change.name == "both" else ()
        return Offer(change.name, refusals=refused)

    async def apply(self, offer: Offer) -> None:
        self.applied.append(offer.id)
        self.names = () if offer.id == "stop" else (offer.id,)

    async def snapshot(self) -> Snapshot:
        binding = MemoryBinding("bind", "0")
        rows = [
            InstanceStatus(
                *(name, self.engine, "", "core:0", State.READY, ""),
                *(1, 1, "http://x", None, 0, "0"),
                binding,
                verified=not self.differs,
            )
            for name in self.names
        ]
        return Snapshot("", "", tuple(rows), ())


def arms_on(service: Refusing, say: Callable[[str], None]) -> ServiceArms:
    layouts = {arm: ApplyLayout(arm, "", "/") for arm in "ab"}
    places = {arm: {arm: Place(CpuSet([0]), (), "bind 0", "core:0")} for arm in "ab"}
    both = ApplyLayout("both", "", "/")
    planned = Plan(layouts, places, both, "", HeldLayout(()), (), (), (), ())
    machine = read_machine(HostRoot())
    return ServiceArms(service, machine, planned, 5.0, say)  # type: ignore[arg-type]


async def test_an_engine_whose_port_another_program_has_is_not_measured() -> None:
    """Two services on one machine: a stranger answered while vLLM was loading, and was ready."""
    with pytest.raises(ControlError, match="another program has it, asked port 8001 of its own"):
        await arms_on(Refusing(engine="vllm-cpu", differs="port"), print).ready("a", fresh=True)
    for engine, differs in (("vllm-cpu", "affinity"), ("command", "port"), ("torch", "")):
        service = Refusing(engine=engine, differs=differs)
        assert (await arms_on(service, print).ready("a", fresh=True)).targets


async def test_arms_that_turn_out_too_large_for_each_other_take_turns() -> None:
    service = Refusing()
    told: list[str] = []
    arms = arms_on(service, told.append)
    for arm in "abb":
        assert [one.name for one in (await arms.ready(arm, fresh=False)).targets] == [arm]
    assert "numa:0 has 1 GiB left" in told[0]
    assert service.applied == ["a", "stop", "b", "stop", "b"], "each block gets its own start"
    assert {arm: len(starts) for arm, starts in arms.start_s.items()} == {"a": 1, "b": 2}


LAYOUT = """# mine
schema = 1
name = "mine"
[[instance]]
name = "a"
engine = "command"
command = ["./run", "--port", "{port}"]
slot = "core:0"
env = { HF_TOKEN = "hf_secret" }
"""


def test_what_ran_is_put_back_by_its_own_file_or_else_by_its_wishes(tmp_path: Path) -> None:
    (wish,) = parse_layout(LAYOUT, name="mine").instances
    held = HeldLayout((HeldWish(wish, str(tmp_path)),), "mine", f"{tmp_path}/mine.toml", LAYOUT)
    same = layout_before(held)
    assert same is not None
    assert (same.text, same.base) == (LAYOUT, str(tmp_path))

    moved = msgspec.structs.replace(wish, slot="core:1")
    other = layout_before(replace(held, wishes=(HeldWish(moved, str(tmp_path)),)))
    assert other is not None
    assert parse_layout(other.text, name="x").instances == (moved,), "secrets and all"
    assert layout_before(replace(held, wishes=())) is None
    assert layout_before(replace(held, text="")) is not None


def test_layouts_of_two_folders_keep_their_relative_paths(tmp_path: Path) -> None:
    for name in ("one/models/m", "two"):
        (tmp_path / name).mkdir(parents=True)
    a = Instance(name="a", engine="torch", model="./models/m")
    b = Instance(name="b", engine="command", command=("./run", "x"))
    c = Instance(name="c", engine="torch", model="owner/name")
    both = as_layout(
        [HeldWish(a, f"{tmp_path}/one"), HeldWish(b, f"{tmp_path}/two"), HeldWish(c, "/")],
        name="both",
    )
    found = {one.name: one for one in parse_layout(both.text, name="both").instances}
    assert Path(found["a"].model).resolve() == tmp_path / "one/models/m"
    assert Path(found["b"].command[0]).resolve() == tmp_path / "two/run"
    assert found["c"].model == "owner/name"


def block(arm: str, tpot: float, **changes: Any) -> Block:
    return replace(Block(arm, 0.0, {"tpot_ms": tpot}, 5), **changes)


def test_the_running_line_narrows_and_names_a_void_pair() -> None:
    pairs = [Pair(block("a", 10), block("b", 12 + n / 10)) for n in range(4)]
    assert running(pairs[:1], ["tpot_ms"]) == "TPOT ×1.200"
    assert running(pairs[:3], ["tpot_ms"]).startswith("TPOT ×1.210 (")
    spoiled = Pair(block("a", 10), block("b", 12, errors=1, first_error="gone"))
    assert "void: B: 1 error, first gone" in running([*pairs, spoiled], ["tpot_ms"])
    assert running([], ["tpot_ms"]) == "no valid pair yet"


def test_blocks_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    pairs = [Pair(block("a", 10, clocks_mhz={"cpu": 3e3}), block("b", 12, throttled=False))]
    answer = {"schema": "slotdeck.ab/1", "arms": {"a": "one", "b": "two"}, "manifest": {}}
    path = tmp_path / "saved.json"
    ab_saved.write(str(path), ab_saved.with_blocks(answer, (), pairs))
    run = ab_saved.read_run(str(path), "b")
    assert (run.name, run.blocks) == ("two", (pairs[0].b,))
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(json.dumps(answer))
    with pytest.raises(UsageError, match="does not look like"):
        ab_saved.read_run(str(path), "a")
    with pytest.raises(UsageError, match="not written"):
        ab_saved.write(str(tmp_path / "no/such/file"), answer)


def test_instances_of_one_name_get_two_where_both_layouts_run() -> None:
    def layout(*names: str) -> ApplyLayout:
        rows = [f'[[instance]]\nname = "{name}"\nslot = "core:0"\n' for name in names]
        return ApplyLayout("l.toml", "schema = 1\n" + "".join(rows), "/base")

    assert told_apart(layout("a"), layout("b")) is None
    apart = told_apart(layout("a", "x"), layout("x", "y", "x-b"))
    assert apart is not None
    names = [one.name for one in parse_layout(apart.text, name="apart").instances]
    assert names == ["x-b2", "y", "x-b"]
    assert (apart.name, apart.base) == ("l.toml", "/base")
