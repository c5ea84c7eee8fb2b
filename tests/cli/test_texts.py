"""Tables and folded lines: what they look like at 80 columns and wide."""

import shlex
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.cli.status import status_json, status_text
from engine.cli.text import folded, number, percent, shell_lines, size, table
from engine.core.status import (
    GpuStatus,
    InstanceStatus,
    Latency,
    MemoryBinding,
    Requests,
    Snapshot,
    State,
    TokenRates,
)


def instance(
    name: str, state: State = State.READY, why: str = "generated a token"
) -> InstanceStatus:
    ready = state is State.READY
    return InstanceStatus(
        name=name,
        engine="torch",
        model="bundled:smollm2-135m",
        slot="auto",
        state=state,
        why=why,
        pid=100 if ready else None,
        port=8001,
        url="http://127.0.0.1:8001",
        started_at=None,
        restarts=0,
        pus="0-15",
        memory=MemoryBinding("bind", "0"),
        tokens_per_s=TokenRates(56.78, 12.34) if ready else TokenRates(),
        ttft_ms=Latency(123.4, 200.0) if ready else Latency(),
        itl_ms=Latency(12.3, 20.0) if ready else Latency(),
        requests=Requests(1, 0),
        cpu_cores_used=15.9 if ready else None,
        rss_bytes=345 << 20 if ready else None,
        pages_local=0.998 if ready else None,
        verified=True if ready else None,
    )


def snapshot(*instances: InstanceStatus) -> Snapshot:
    return Snapshot("2026-01-01T00:00:00Z", "r", instances, ())


def test_the_status_table_at_80_columns_and_wide() -> None:
    both = snapshot(
        instance("a"), instance("b", State.FAILED, "ended with exit code 1: " + "x " * 50)
    )
    assert status_text(both, 80).splitlines()[:4] == [
        "NAME  STATE   PU      OUT     IN    TTFT     ITL    CPU   PAGES        RSS  PORT",
        "                    tok/s  tok/s  p50 ms  p50 ms  cores   local",
        "a     ready   0-15   12.3   56.8   123.4    12.3  15.90  99.8 %  345.0 MiB  8001",
        "b     failed  0-15      –      –       –       –      –       –          –  8001",
    ]
    assert max(map(len, status_text(both, 80).splitlines())) <= 80
    wide = status_text(both, 200).splitlines()
    assert wide[0].endswith("RSS                    URL")
    assert "PORT" not in wide[0]
    narrow = status_text(both, 60).splitlines()
    assert max(map(len, narrow)) <= 60
    assert narrow[0].split() == ["NAME", "STATE", "PU", "OUT", "TTFT", "ITL", "CPU", "PAGES"]


def test_gpus_have_a_line_each_with_a_dash_and_the_reason_for_what_is_unknown() -> None:
    known = GpuStatus(0, 0.34, 4 << 30, 41.4, 56.0, 2400.0, 12 << 30, throttle=("pl1",))
    unknown = GpuStatus(1, memory_total_bytes=12 << 30, unknown={"busy": "no process has it open"})
    shown = replace(snapshot(instance("a")), gpus=(known, unknown))
    assert status_text(shown, 120).splitlines()[-3:] == [
        "GPU 0: 34 % busy, 4.0 GiB of 12.0 GiB, 41 W, 56 °C, 2400 MHz, held down by pl1",
        "GPU 1: – busy, – of 12.0 GiB, – W, – °C, – MHz",
        "  busy: no process has it open",
    ]


def test_the_reason_of_what_is_not_well_stands_below() -> None:
    text = status_text(snapshot(instance("a", State.BACKOFF, "boom; restart in 1 s")), 80)
    assert text.splitlines()[-1] == "a: boom; restart in 1 s"
    assert "no instances" in status_text(snapshot())


def test_status_json_has_the_keys_of_the_contract() -> None:
    status = status_json(snapshot(instance("a")))
    assert set(status) == {"schema", "instances", "numa_nodes", "gpus", "sampled_at"}
    contract = {
        *("name", "engine", "model", "slot", "state", "why", "pid", "port", "url", "started_at"),
        *("restarts", "pus", "memory", "tokens_per_s", "ttft_ms", "itl_ms", "requests"),
        *("kv_cache_used", "cpu_cores_used", "rss_bytes", "pages_local", "verified"),
    }
    (one,) = status["instances"]
    assert contract <= set(one)
    # Beyond the contract: which GPUs, what it takes of them, and why a figure is null.
    assert set(one) - contract == {"gpus", "gpu_use", "unknown"}
    assert (set(one["tokens_per_s"]), set(one["ttft_ms"])) == (
        {"prompt", "output"},
        {"p50", "p95"},
    )


words = st.lists(st.text("ab ,'\"$\\", min_size=1, max_size=30), min_size=1, max_size=12)


@given(words, st.integers(20, 90))
def test_a_folded_command_is_the_same_command(arguments: list[str], width: int) -> None:
    lines = shell_lines([shlex.quote(word) for word in arguments], width, indent="  ")
    joined = "\n".join(lines).replace("\\\n", "")
    assert shlex.split(joined) == arguments


@given(st.text("ab ,", max_size=120), st.integers(10, 40))
def test_folding_loses_nothing(text: str, width: int) -> None:
    lines = folded(text, width, indent="  ")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_small_words() -> None:
    assert [size(value) for value in (None, 0, 1023, 1536, 5 << 30, 3 << 40)] == [
        *("–", "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB"),
    ]
    assert (number(None), number(1.25, 2)) == ("–", "1.25")
    # Rounded down: 100 % is all of it.
    shares = [percent(share) for share in (None, 0.0, 0.29, 0.9999, 1.0)]
    assert shares == ["–", "0 %", "29 %", "99.9 %", "100 %"]
    assert table(["A", "B"], [["x", "10"], ["long", "5"]]) == "A      B\nx     10\nlong   5"
