"""What each command prints, with which exit code, on which stream."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.main import VERBS
from engine.core.cpuset import CpuSet
from tests.cli.conftest import ROOT, Run, Said

Say = Callable[..., Said]


def layout(folder: Path, *lines: str, name: str = "l.toml") -> str:
    path = folder / name
    path.write_text("\n".join(["schema = 1", "[[instance]]", 'name = "a"', *lines, ""]))
    return str(path)


COMMAND = ('engine = "command"', 'command = ["server", "--port", "{port}", "--cpus", "{cpus}"]')


def recorded(folder: Path) -> str:
    """A small recorded machine: two packages, a node each, two cores of two siblings."""
    files = {"sys/devices/system/cpu/online": "0-7"}
    for pu in range(8):
        topology = f"sys/devices/system/cpu/cpu{pu}/topology"
        files[f"{topology}/physical_package_id"] = str(pu % 4 // 2)
        files[f"{topology}/core_id"] = str(pu % 2)
        files[f"{topology}/thread_siblings_list"] = f"{pu % 4},{pu % 4 + 4}"
    for node, cpus in enumerate(("0-1,4-5", "2-3,6-7")):
        place = f"sys/devices/system/node/node{node}"
        files[f"{place}/cpulist"] = cpus
        files[f"{place}/meminfo"] = f"Node {node} MemTotal: {64 << 20} kB"
        files[f"{place}/distance"] = "10 21" if node == 0 else "21 10"
    files["proc/self/status"] = "Cpus_allowed_list:\t0-7\nMems_allowed_list:\t0-1"
    for name, text in files.items():
        path = folder / "recorded" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return str(folder / "recorded")


def told(said: Said, code: int, *words: str) -> None:
    """An error: its code, nothing on stdout, and what, why and do on stderr."""
    assert (said.code, said.out) == (code, ""), said.err
    first, *rest = said.err.splitlines()
    assert first.startswith("slotdeck: ")
    assert [line[:7] for line in rest if line.startswith("  ")][:2] == ["  why: ", "  do:  "]
    for word in words:
        assert word in said.err


# Usage


def test_help_and_version(say: Say) -> None:
    said = say("--help")
    assert (said.code, said.err) == (0, "")
    assert all(f"  {verb}" in said.out for verb in VERBS)
    assert "Exit codes: 0 done" in said.out
    assert max(map(len, said.out.splitlines())) <= 99
    assert say("--version").out.startswith("slotdeck ")


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_help(say: Say, verb: str) -> None:
    said = say(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"usage: slotdeck {verb}" in said.out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["tpoo"], "Did you mean 'topo'?"),
        (["statsu"], "Did you mean 'status'?"),
        (["UP"], "Did you mean 'up'?"),
        (["xyzzy"], "`slotdeck --help` lists them"),
        (["topo", "--jsn"], "`slotdeck topo --help` tells how it is written"),
        (["topo", "more"], "unrecognized arguments: more"),
        (["plan"], "LAYOUT"),
        (["up"], "LAYOUT"),
        (["up", "x.toml", "--timeout", "soon"], "invalid float value: 'soon'"),
        (["down"], "down takes names, or --all"),
        (["down", "a", "--all"], "down takes names, or --all"),
        (["service"], "what"),
        (["models", "prepare", "nope"], "There is no bundled model 'nope'"),
        (["topo", "--root", "/nowhere"], "there is no such folder"),
        (["topo", "--root", "."], "it has no folder sys"),
        (["topo", "--hwloc", "/nowhere.xml"], "lstopo"),
        (["topo", "--synthetic", "pack:2 coer:4"], "Did you mean 'core'?"),
        (["topo", "--root", ".", "--synthetic", "core:4"], "not allowed with argument --root"),
        (["move", "a", "nuam:0"], "Did you mean 'numa'?"),
    ],
)
def test_bad_usage_is_2(say: Say, words: list[str], hint: str) -> None:
    told(say(*words), 2, hint)


# topo

TOPO_KEYS = {
    *("schema", "packages", "numa_nodes", "cores", "pus", "usable_nodes", "distances", "gpus"),
    *("memory_bytes", "missing"),
}


def test_topo_json_has_the_keys_of_the_contract(say: Say, home: Path) -> None:
    said = say("topo", "--json", "--root", recorded(home))
    topo = json.loads(said.out)
    assert (said.code, topo["schema"]) == (0, "slotdeck.topo/1")
    assert set(topo) == TOPO_KEYS
    assert topo["packages"][1] == {"os_index": 1, "numa_nodes": "1", "cores": 2}
    assert topo["numa_nodes"][0] == {
        "os_index": 0,
        "cpus": "0-1,4-5",
        "memory_bytes": 64 << 30,
        "packages": [0],
        "kind": "dram",
        "initiators": "",
    }
    assert topo["cores"][0] == {
        "package": 0,
        "core_id": 0,
        "numa_nodes": "0",
        "pus": "0,4",
        "kind": None,
    }
    assert topo["pus"] == {"online": "0-7", "offline": "", "usable": "0-7"}
    assert (topo["usable_nodes"], topo["distances"]) == ("0-1", [[10, 21], [21, 10]])
    assert all(set(missing) == {"what", "why"} for missing in topo["missing"])


def test_a_made_up_machine_is_mapped_and_planned_for(say: Say, home: Path) -> None:
    spec = "pack:2 numa:2 core:4 pu:2 mem:8GiB"
    topo = json.loads(say("topo", "--json", "--synthetic", spec).out)
    assert (len(topo["cores"]), topo["memory_bytes"]) == (16, 32 << 30)
    layout = home / "a.toml"
    layout.write_text(
        'schema = 1\nname = "x"\n[[instance]]\nname = "a"\nslot = "numa:3"\n'
        'engine = "torch"\nmodel = "bundled:smollm2-135m"\n'
    )
    plan = json.loads(say("plan", str(layout), "--json", "--synthetic", spec).out)
    assert plan["placements"][0]["memory"] == {"policy": "bind", "nodes": "3"}


def test_topo_of_this_machine(say: Say) -> None:
    topo = json.loads(say("topo", "--json").out)
    assert CpuSet.parse(topo["pus"]["usable"]).pus == os.sched_getaffinity(0)
    assert "usable: PU" in say("topo").out


# plan

PLAN_KEYS = {
    *("instance", "engine", "slot", "pus", "memory", "gpus", "tensor_parallel", "port", "argv"),
    *("env", "shell", "needs", "reasons", "warnings", "reserved", "limits"),
}


def test_plan_json_has_the_keys_of_the_contract(say: Say, home: Path) -> None:
    path = layout(home, *COMMAND, 'slot = "numa:1"', 'env = { HF_TOKEN = "hf_x", A = "1 2" }')
    said = say("plan", path, "--json", "--root", recorded(home))
    plan = json.loads(said.out)
    assert (said.code, set(plan)) == (0, {"schema", "layout", "placements", "refusals"})
    (one,) = plan["placements"]
    assert set(one) == PLAN_KEYS
    assert (plan["schema"], plan["layout"]) == ("slotdeck.plan/1", path)
    assert (one["pus"], one["memory"], one["port"]) == (
        *("2-3", {"policy": "bind", "nodes": "1"}),
        8001,
    )
    assert one["argv"] == ["server", "--port", "8001", "--cpus", "2-3"]
    assert (one["env"]["HF_TOKEN"], one["env"]["A"]) == ("(redacted)", "1 2")
    assert "hf_x" not in said.out
    assert one["shell"].endswith("numactl -C 2-3 -m 1 server --port 8001 --cpus 2-3")
    assert "A='1 2'" in one["shell"]
    assert set(one["needs"]) >= {"weights_bytes", "kv_bytes", "total_bytes"}
    assert one["reasons"]


def test_plan_for_another_machine_needs_no_model_and_says_so(say: Say, home: Path) -> None:
    path = layout(home, 'model = "./not-here"', 'slot = "each numa"')
    said = say("plan", path, "--root", recorded(home))
    assert said.code == 0, said.err
    assert "a-1: PU 2-3, memory bind 1, port 8002" in said.out
    assert "sizes unknown" in said.out
    assert "numactl -C 0-1 -m 0" in said.out


def test_the_planned_command_can_be_copied_from_the_text(say: Say, home: Path) -> None:
    arguments = [f'"{"word " * 5}{number}"' for number in range(9)]
    path = layout(home, COMMAND[0], f"command = [{', '.join(arguments)}]", 'slot = "core:0"')
    text = say("plan", path, "--root", recorded(home)).out
    begun = text.index("numactl")
    assert shlex.split(text[begun:].replace("\\\n", ""))[5:] == [
        word.strip('"') for word in arguments
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_a_refused_plan_is_3_and_shows_the_rest(say: Say, home: Path) -> None:
    lines = ('slot = "numa:0"', "[[instance]]", 'name = "b"', *COMMAND, 'slot = "numa:0"')
    path = layout(home, *COMMAND, *lines)
    said = say("plan", path, "--root", recorded(home))
    assert said.code == 3
    assert "a: PU 0-1" in said.out
    assert "b: REFUSED: numa:0 overlaps a (PU 0-1,4-5)" in said.out
    as_json = say("plan", path, "--json", "--root", recorded(home))
    assert as_json.code == 3
    (refusal,) = json.loads(as_json.out)["refusals"]
    assert set(refusal) == {"instance", "why", "do"}


def test_a_live_plan_without_the_model_is_refused(say: Say, home: Path) -> None:
    said = say("plan", layout(home, 'model = "./not-here"', 'slot = "auto"'))
    assert said.code == 3
    assert "a: REFUSED: " in said.out


@pytest.mark.parametrize("verb", ["plan", "up"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"schema = 1\n[[instance]]\nname = 'a'\nslto = 'auto'\n", ["line 4", "'slot'"]),
        (b"schema = 1\n[[instance]]\nname = 'a'\nengine = 'vlm'\n", ["line 4", "It may be:"]),
        (b"schema = 1\n[[instance]]\nname='a'\nweight_only='int3'\n", ["line 4", "'int8'"]),
        (b"schema = \n", ["line 1", "is not TOML"]),
        (b"\xff\xfe\x00binary", ["it is not UTF-8 text"]),
        (b"", ["line 1", "no schema"]),
        (b"#" * (1 << 20) + b"#\n", ["larger than 1 MiB"]),
    ],
)
def test_a_bad_layout_is_2_and_starts_no_service(
    say: Say, home: Path, verb: str, content: bytes, words: list[str]
) -> None:
    (home / "bad.toml").write_bytes(content)
    told(say(verb, "bad.toml"), 2, "bad.toml", *words)


@pytest.mark.parametrize("verb", ["plan", "up"])
@pytest.mark.parametrize(
    ("path", "why"),
    [("nowhere.toml", "No such file"), (".", "Is a directory"), ("/dev/zero", "larger than")],
)
def test_a_layout_that_cannot_be_read_is_2(say: Say, verb: str, path: str, why: str) -> None:
    told(say(verb, path), 2, why)


def test_a_byte_order_mark_and_a_pipe_are_no_mistakes(spawn: Run, home: Path) -> None:
    text = Path(layout(home, *COMMAND, 'slot = "core:0"')).read_text()
    done = spawn("plan", "/dev/stdin", "--root", recorded(home), given=f"\ufeff{text}")
    assert (done.returncode, done.stderr) == (0, "")


# status and the others without a service


def test_without_a_service_there_are_no_instances(say: Say) -> None:
    said = say("status", "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == {
        "schema": "slotdeck.status/1",
        "instances": [],
        "numa_nodes": [],
        "gpus": [],
        "sampled_at": None,
    }
    assert "there are no instances" in say("status").out
    assert say("down", "--all").code == 0
    assert say("service", "status").code == 0
    assert say("service", "stop").code == 0


@pytest.mark.parametrize(
    "words", [["down", "a"], ["logs", "a"], ["move", "a", "numa:0"]], ids=lambda words: words[0]
)
def test_what_is_not_there_is_1_and_starts_no_service(say: Say, words: list[str]) -> None:
    told(say(*words), 1, "There is no instance 'a'", "slotdeck up LAYOUT")


def test_a_journal_that_names_nobody_starts_no_service(say: Say, home: Path) -> None:
    journal = home / "state/slotdeck/journal.json"
    journal.parent.mkdir()
    journal.write_text('{"schema":"slotdeck.journal/1","boot_id":"x","instances":[]}')
    told(say("logs", "a"), 1, "There is no instance 'a'")
    journal.write_text('{"instances":[{"name":"a"}]}')
    assert "An earlier one left instances" in say("status").out


# The ways in which a command can be cut short


def test_a_closed_pipe_is_no_error(home: Path) -> None:
    program = f"{sys.executable} -m engine.cli.main"
    done = subprocess.run(
        ["/bin/bash", "-c", f"set -o pipefail; {program} topo --json | head -1; {program} -h | :"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told(home: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli.main", "topo"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("slotdeck: The answer could not be written")
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_130(home: Path) -> None:
    os.mkfifo(home / "never.toml")
    child = subprocess.Popen(
        [sys.executable, "-m", "engine.cli.main", "plan", str(home / "never.toml")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        writer = opened_for_writing(home / "never.toml")
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
        os.close(writer)
    finally:
        child.kill()
        child.communicate()
    assert (child.returncode, err) == (130, "")


def opened_for_writing(fifo: Path) -> int:
    """Works as soon as a reader has opened it: then the program reads, and is past its start."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < deadline, "nobody reads it"
            time.sleep(0.02)
