"""`slotdeck export`: what is written runs, and says to each tool what the plan said."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.core.cpuset import CpuSet
from engine.host.numa import process_policy
from engine.host.root import HostRoot
from tests.cli.conftest import Said
from tests.processes import FAKE_ENGINE, alive, eventually, free_ports

Say = Callable[..., Said]
FORMS = ("bash", "systemd", "compose", "haproxy")
SPEC = "pack:2 numa:1 core:4 pu:2 gpu:1"
ENGINE = [sys.executable, "-S", str(FAKE_ENGINE), "--port", "{port}"]
NEEDED = ("bash", "env", "sleep", "mkdir", "tail", "taskset")

needs_bash = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}"
)


def layout(folder: Path, *instances: dict[str, Any], name: str = "two fakes") -> str:
    lines = ["schema = 1", f"name = {json.dumps(name)}"]
    for instance in instances:
        keys = {"engine": "command", "command": [*ENGINE, *instance.pop("flags", [])], **instance}
        lines += ["[[instance]]", *(f"{key} = {toml(value)}" for key, value in keys.items())]
    path = folder / "l.toml"
    path.write_text("\n".join(lines))
    return str(path)


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + " }"
    # TOML takes no DEL as it stands.
    return json.dumps(value).replace("\x7f", "\\u007f")


TRICKY = 'a "b" $HOME %h \\ \' \t\n;ü #'


def pair(folder: Path) -> str:
    """Two replicas with a setting that each form must quote, and a secret."""
    env = {"TRICKY": TRICKY, "HF_TOKEN": "hf-secret"}
    both = {"cores": 2, "env": env, "flags": [TRICKY, "%i", "$$"]}
    return layout(folder, {"name": "a", **both}, {"name": "b.c", **both})


# Usage


@pytest.mark.parametrize(
    ("form", "hint"), [("bsh", "Did you mean 'bash'? "), ("System", "Did you mean 'systemd'? ")]
)
def test_another_form_is_a_usage_error(say: Say, home: Path, form: str, hint: str) -> None:
    said = say("export", pair(home), "--to", form)
    assert (said.code, said.out) == (2, "")
    assert hint in said.err
    assert say("export", pair(home)).code == 2


@pytest.mark.parametrize("words", [("bash", "8000"), ("haproxy", "0"), ("haproxy", "70000")])
def test_a_port_is_for_haproxy(say: Say, home: Path, words: tuple[str, str]) -> None:
    said = say("export", pair(home), "--to", words[0], "--port", words[1])
    assert (said.code, said.out) == (2, "")


@pytest.mark.parametrize("form", FORMS)
def test_a_refused_plan_is_3_and_nothing_is_written(say: Say, home: Path, form: str) -> None:
    path = layout(home, {"name": "a", "slot": "numa:0"}, {"name": "b", "slot": "numa:9"})
    before = sorted(home.iterdir())
    said = say("export", path, "--to", form, "--synthetic", SPEC, "--output", "out")
    assert (said.code, said.out) == (3, "")
    assert "b: " in said.err
    assert sorted(home.iterdir()) == before


@pytest.mark.parametrize("form", FORMS)
def test_the_same_input_gives_the_same_bytes_printed_or_written(
    say: Say, home: Path, form: str
) -> None:
    words = ("export", pair(home), "--to", form, "--synthetic", SPEC)
    printed = say(*words)
    assert (printed.code, printed.err) == (0, "")
    assert say(*words).out == printed.out
    assert "hf-secret" not in printed.out
    assert "# Layout: two fakes\n" in printed.out
    (home / "out").mkdir()
    assert say(*words, "--output", str(home / "out")).code == 0
    files = {one.name: one.read_text() for one in (home / "out").iterdir()}
    if form == "systemd":
        assert set(files) == {"slotdeck.target", "slotdeck-a.service", "slotdeck-b.c.service"}
        parts = re.split(r"^# file: (.*)\n", printed.out, flags=re.MULTILINE)[1:]
        files = {name: f"{text.rstrip()}\n" for name, text in files.items()}
        shown = dict(zip(parts[::2], parts[1::2], strict=True))
        assert {name: f"{text.rstrip()}\n" for name, text in shown.items()} == files
    else:
        assert list(files.values()) == [printed.out]


def test_files_that_are_there_stay_unless_forced(say: Say, home: Path) -> None:
    words = ("export", pair(home), "--synthetic", SPEC)
    script = home / "start.sh"
    script.write_text("mine")
    said = say(*words, "--to", "bash", "--output", str(script))
    assert (said.code, said.out) == (1, "")
    assert "--force" in said.err
    assert script.read_text() == "mine"
    assert say(*words, "--to", "bash", "--output", str(script), "--force").code == 0
    assert script.read_text().startswith("#!")
    assert stat.S_IMODE(script.stat().st_mode) & 0o100
    units = home / "new/units"
    units.mkdir(parents=True)
    (units / "slotdeck-b.c.service").write_text("mine")
    assert say(*words, "--to", "systemd", "--output", str(units)).code == 1
    assert [one.name for one in units.iterdir()] == ["slotdeck-b.c.service"], "all or none"
    fifo = home / "pipe"
    os.mkfifo(fifo)
    assert say(*words, "--to", "bash", "--output", str(fifo), "--force").code == 1
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert say(*words, "--to", "bash", "--output", str(home / "no/where")).code == 1


def test_a_recorded_machine_and_hwloc_xml_are_exported_for(say: Say, home: Path) -> None:
    said = say("export", pair(home), "--to", "bash", "--hwloc", str(home / "none.xml"))
    assert said.code == 2
    said = say("export", pair(home), "--to", "bash", "--root", str(home / "none"))
    assert said.code == 2


# bash


class Script:
    """An exported script that runs."""

    def __init__(self, home: Path, script: Path, path: str, *, ctty: int | None = None) -> None:
        self.logs = home / "logs"
        self.said = home / "said"
        words = ["bash", str(script)]
        if ctty is not None:
            words = ["setsid", "--ctty", "--wait", *words]
        bash = shutil.which("bash")
        assert bash
        words[words.index("bash")] = bash
        with self.said.open("wb") as said:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL if ctty is None else ctty,
                stdout=said,
                stderr=subprocess.STDOUT,
                env={"PATH": path, "SLOTDECK_LOGS": str(self.logs)},
                start_new_session=ctty is None,
            )

    def pids(self, name: str) -> list[int]:
        """Each start of an instance."""
        return [int(pid) for pid in re.findall(rf"^{name}: pid (\d+),", self.text(), re.MULTILINE)]

    def text(self) -> str:
        return self.said.read_text()

    def end(self) -> int:
        return self.process.wait(15)


@pytest.fixture
def start(home: Path, say: Say) -> Iterator[Callable[..., Script]]:
    """Export a layout to bash and run the script; everything of it ends with the test."""
    running: list[Script] = []

    def run(path: str, *, search: str | None = None, ctty: int | None = None) -> Script:
        script = home / "start.sh"
        assert say("export", path, "--to", "bash", "--output", str(script)).code == 0
        search = search or os.environ["PATH"]  # noqa: TID251
        running.append(Script(home, script, search, ctty=ctty))
        return running[-1]

    yield run
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for pid in map(int, re.findall(r": pid (\d+),", one.text())):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def is_up(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def can_bind_memory() -> bool:
    words = ["numactl", "-m", "0", "true"]
    return (
        shutil.which("numactl") is not None
        and not subprocess.run(words, capture_output=True, check=False).returncode
    )


def limits_of(pid: int) -> str:
    return Path(f"/proc/{pid}/limits").read_text()


def two_pus() -> tuple[int, int]:
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@needs_bash
def test_the_script_starts_pinned_engines_and_ctrl_c_stops_them_all(
    home: Path, start: Callable[..., Script]
) -> None:
    if not can_bind_memory():
        pytest.skip("numactl is missing, or may not set a memory policy here")
    first, last = two_pus()
    if first == last:
        pytest.skip("needs two PUs")
    ports = free_ports(2)
    (home / "two words").mkdir()
    flags = ["--fork-child", "--write-fds", str(home / "two words/fds")]
    env = {"TRICKY": TRICKY}
    path = layout(
        home,
        {"name": "a", "slot": f"pu:{last}", "port": ports[0], "flags": flags, "env": env},
        {
            "name": "b",
            "slot": f"pu:{first}",
            "port": ports[1],
            "memory": "local",
            "oom_score_adj": 500,
            "core_dumps": True,
        },
    )
    script = start(path)
    eventually(lambda: all(map(is_up, ports)))
    (a,), (b,) = script.pids("a"), script.pids("b")
    assert (os.sched_getaffinity(a), os.sched_getaffinity(b)) == ({last}, {first})
    assert str(process_policy(HostRoot(), a)).startswith("bind:")
    assert process_policy(HostRoot(), b) in ("default", "local")
    assert f"TRICKY={TRICKY}".encode() in Path(f"/proc/{a}/environ").read_bytes().split(b"\0")
    assert Path(f"/proc/{a}/oom_score_adj").read_text() == "300\n"
    assert Path(f"/proc/{b}/oom_score_adj").read_text() == "500\n"
    cores = [re.findall(r"core file size\s+(\S+)\s+(\S+)", limits_of(pid))[0] for pid in (a, b)]
    assert cores[0][0] == "0"
    assert cores[1][0] == cores[1][1]
    assert "fake engine, pid" in (script.logs / "a.log").read_text()
    children = [int(pid) for pid in Path(f"/proc/{a}/task/{a}/children").read_text().split()]
    assert children
    script.process.send_signal(signal.SIGINT)
    assert script.end() == 130
    assert not any(map(alive, (a, b, *children)))


@needs_bash
def test_without_numactl_taskset_pins_and_the_loss_is_told(
    home: Path, start: Callable[..., Script]
) -> None:
    tools = home / "tools"
    tools.mkdir()
    for name in NEEDED:
        (tools / name).symlink_to(str(shutil.which(name)))
    (port,) = free_ports(1)
    last = two_pus()[1]
    one = {"name": "a", "slot": f"pu:{last}", "port": port, "flags": ["--ignore-sigterm"]}
    script = start(layout(home, {**one, "stop_grace_s": 0.3}), search=str(tools))
    eventually(lambda: is_up(port))
    (a,) = script.pids("a")
    assert os.sched_getaffinity(a) == {last}
    assert "memory is not bound" in script.text()
    script.process.send_signal(signal.SIGTERM)
    assert script.end() == 143
    assert not alive(a), "killed after its grace"


@needs_bash
@pytest.mark.skipif(shutil.which("setsid") is None, reason="no setsid here")
def test_ctrl_c_in_a_terminal(home: Path, start: Callable[..., Script]) -> None:
    near, far = os.openpty()
    try:
        (port,) = free_ports(1)
        path = layout(home, {"name": "a", "slot": "auto", "memory": "local", "port": port})
        script = start(path, ctty=far)
        eventually(lambda: is_up(port))
        os.write(near, b"\x03")
        assert script.end() == 130
        assert not alive(script.pids("a")[0])
    finally:
        os.close(near)
        os.close(far)


@needs_bash
def test_one_that_fails_is_restarted_or_stops_the_others(
    home: Path, start: Callable[..., Script]
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two PUs")
    ports = free_ports(2)
    both = {"slot": "auto", "cores": 1, "memory": "local"}
    path = layout(
        home,
        {"name": "a", **both, "port": ports[0]},
        {
            "name": "b",
            **both,
            "port": ports[1],
            "restart": "never",
            "flags": ["--crash-after", "0.1", "--exit-code", "7"],
        },
    )
    script = start(path)
    assert script.end() == 1
    assert "b: ended with exit code 7\n" in script.text()
    assert "out of luck" in script.text()
    assert not alive(script.pids("a")[0])
    path = layout(home, {"name": "c", **both, "port": ports[0], "flags": ["--crash-after", "0.1"]})
    (home / "start.sh").unlink()
    script = start(path)
    eventually(lambda: len(script.pids("c")) == 2)
    script.process.send_signal(signal.SIGINT)
    assert script.end() == 130


@needs_bash
def test_bash_and_shellcheck_find_nothing(say: Say, home: Path) -> None:
    script = home / "s.sh"
    words = ("export", pair(home), "--to", "bash", "--synthetic", SPEC)
    assert say(*words, "--output", str(script)).code == 0
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "HF_TOKEN: set it" in done.stderr
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck here; bash -n found nothing")
    # A `$` in single quotes is meant as it stands.
    check = ["shellcheck", "-e", "SC2016", str(script)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# systemd


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_takes_the_units_as_planned(say: Say, home: Path) -> None:
    env = {"TRICKY": TRICKY, "HF_TOKEN": "x"}
    # What systemd-analyze shows is ASCII.
    flags = [TRICKY.replace("ü", "u"), "%i", "$$", "--api-key", "sk-1", ";", ""]
    path = layout(
        home,
        {"name": "a", "slot": "numa:1/core:0-2", "env": env, "flags": flags},
        {"name": "g", "slot": "gpu:0", "memory": "interleave", "stop_grace_s": 0},
        {"name": "l", "slot": "auto", "cores": 1, "memory": "local", "restart": "never"},
    )
    source = ("--synthetic", SPEC)
    units = home / "units"
    assert say("export", path, "--to", "systemd", *source, "--output", str(units)).code == 0
    planned = json.loads(say("plan", path, "--json", *source).out)["placements"]
    done = subprocess.run(
        [
            *("systemd-analyze", "verify", "--man=no", "--recursive-errors=no"),
            *map(str, sorted(units.iterdir())),
        ],
        env={
            "PATH": os.defpath,
            "XDG_RUNTIME_DIR": str(home),
            "SYSTEMD_LOG_LEVEL": "debug",
            "SYSTEMD_LOG_TARGET": "console",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    problems = [line for line in done.stderr.splitlines() if line.startswith(str(units))]
    assert problems == []
    if "CPUAffinity: " not in done.stdout:
        pytest.skip("this systemd-analyze does not show what it has read; it found no mistake")
    for one in planned:
        dump = done.stdout.split(f"-> Unit slotdeck-{one['instance']}.service:")[1]
        dump = dump.split("-> Unit ")[0]
        read = dict(re.findall(r"^\t\t(\w+): (.*)$", dump, re.MULTILINE))
        assert CpuSet.parse(read["CPUAffinity"].replace(" ", ",")) == CpuSet.parse(one["pus"])
        assert read["NUMAPolicy"] == one["memory"]["policy"]
        assert read["NUMAMask"].strip() == one["memory"]["nodes"]
        assert read["KillMode"] == "control-group"
        assert read["OOMScoreAdjust"] == "300"
    dump = done.stdout.split("-> Unit slotdeck-a.service:")[1].split("-> Unit ")[0]
    assert f"\t\tEnvironment: TRICKY={TRICKY}\n" in dump
    line = dump.split("Command Line: ")[1].split("\n")[0]
    shown = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    got = [
        re.sub(r"\\(.)", lambda one: {"n": "\n", "t": "\t"}.get(one[1], one[1]), a or b)
        for a, b in shown
    ]
    wanted = [word.replace("$", "$$") for word in planned[0]["argv"]]
    wanted[wanted.index("(redacted)")] = "${API_KEY}"
    assert got == wanted
    assert "TimeoutStopSec: 1ms\n" in done.stdout
    assert "DeviceAllow: /dev/dri/renderD128 rw\n" in done.stdout


# compose


def compose_programs() -> list[list[str]]:
    found: list[list[str]] = []
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) is None:
            continue
        asked = subprocess.run([*words, "version"], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and "ompose" in asked.stdout:
            found.append(words)
    return found


def test_compose_holds_the_plan(say: Say, home: Path) -> None:
    yaml = pytest.importorskip("yaml")
    model = home / "models/m $1"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    path = layout(
        home,
        {"name": "t", "engine": "torch", "model": str(model), "slot": "numa:0", "port": 9001},
        {"name": "g", "slot": "gpu:1", "env": {"TRICKY": TRICKY, "HF_TOKEN": "x"}},
    )
    said = say("export", path, "--to", "compose", "--synthetic", SPEC)
    assert said.code == 0
    services = yaml.safe_load(said.out)["services"]
    t, g = services["t"], services["g"]
    assert t["command"][:2] == ["python3", "-u"]
    assert t["command"][t["command"].index("--host") + 1] == "0.0.0.0"
    assert t["ports"] == ["127.0.0.1:9001:9001"]
    assert [one["source"] for one in t["volumes"]][1] == str(model).replace("$", "$$")
    assert all(one["read_only"] for one in t["volumes"])
    assert Path(t["volumes"][0]["source"], "__main__.py").is_file()
    assert (t["cpuset"], t["entrypoint"]) == ("0-3", ["numactl", "-m", "0"])
    assert g["devices"] == ["/dev/dri/renderD129"]
    assert g["group_add"][0].startswith("${RENDER_GID:?")
    programs = compose_programs()
    if not programs:
        pytest.skip("no compose here; the file was read by PyYAML only")
    (home / "compose.yaml").write_text(said.out)
    variables = {"SLOTDECK_IMAGE_TORCH": "t:1", "SLOTDECK_IMAGE_COMMAND": "c:1"}
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(home)}  # noqa: TID251
    for program in programs:
        words = [*program, "-f", str(home / "compose.yaml"), "config"]
        done = subprocess.run(
            words, env=surroundings, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode != 0, "an image must be named"
        done = subprocess.run(
            words,
            env={**surroundings, **variables, "RENDER_GID": "44", "HF_TOKEN": "x"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        read = yaml.safe_load(done.stdout)["services"]
        planned = json.loads(say("plan", path, "--json", "--synthetic", SPEC).out)["placements"]
        argv = [word.replace("$$", "$") for word in read["g"]["command"]]
        assert argv == planned[1]["argv"]
        assert read["g"]["environment"]["TRICKY"].replace("$$", "$") == TRICKY
        assert read["g"]["environment"]["HF_TOKEN"] == "x"
        assert read["t"]["image"] == "t:1"


# haproxy

HAPROXY = shutil.which("haproxy", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin:/sbin")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="no haproxy here")


@needs_haproxy
def test_haproxy_finds_no_mistake(say: Say, home: Path) -> None:
    assert HAPROXY
    path = layout(
        home,
        {"name": "a", "model": "owner/m", "slot": "numa:0"},
        {"name": "b", "model": "owner/n", "slot": "numa:1", "host": "::1"},
    )
    config = home / "h.cfg"
    words = ("export", path, "--to", "haproxy", "--synthetic", SPEC, "--output", str(config))
    assert say(*words).code == 0
    done = subprocess.run(
        [HAPROXY, "-c", "-f", str(config)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


@needs_haproxy
def test_requests_through_haproxy_reach_every_replica(say: Say, home: Path) -> None:
    assert HAPROXY
    *ports, front = free_ports(3)
    path = layout(
        home,
        *({"name": f"r{at}", "slot": f"numa:{at}", "port": ports[at]} for at in (0, 1)),
    )
    config = home / "h.cfg"
    words = ("export", path, "--to", "haproxy", "--synthetic", SPEC, "--port", str(front))
    assert say(*words, "--output", str(config)).code == 0
    with contextlib.ExitStack() as ends:
        for command in (
            *([*ENGINE[:-1], str(port)] for port in ports),
            [HAPROXY, "-db", "-f", str(config)],
        ):
            process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            ends.callback(process.wait, 60)
            ends.callback(process.kill)
        eventually(lambda: all(map(is_up, ports)))
        eventually(lambda: is_up(front))
        deadline = time.monotonic() + 60
        while min(map(tokens, ports)) == 0:
            assert complete(front) == 200
            assert time.monotonic() < deadline


def tokens(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return int(re.findall(r"^vllm:generation_tokens_total (\d+)$", text, re.MULTILINE)[0])


def complete(port: int) -> int:
    body = json.dumps({"model": "m", "prompt": "Hi", "max_tokens": 2}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
