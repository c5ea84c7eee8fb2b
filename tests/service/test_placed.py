"""What the started engine is, read back from /proc: the placement took, and nothing leaked."""

import os
import re
from pathlib import Path

from engine.core.status import State
from tests.processes import Home, alive, environment_of, free_ports

WITH_CORE_FILES = (
    "import resource; hard = resource.getrlimit(resource.RLIMIT_CORE)[1]; "
    "resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))"
)


def allowed(pid: int) -> set[str]:
    """The affinity of each thread, kernel form."""
    return {
        re.findall(r"^Cpus_allowed_list:\s*(\S+)$", (task / "status").read_text(), re.MULTILINE)[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def core_limit(pid: int) -> str:
    """The soft one."""
    limits = Path(f"/proc/{pid}/limits").read_text()
    return str(re.findall(r"^Max core file size\s+(\S+)", limits, re.MULTILINE)[0])


def working_folder(pid: int) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


def policies(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/numa_maps").read_text().splitlines()
    return {line.split()[1] for line in lines}


async def test_an_engine_and_its_children_are_where_they_were_placed(home: Home) -> None:
    fds = home.folder / "fds"
    home.environment |= {"HF_TOKEN": "hf_secret", "LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "7"}
    client = await home.served(launcher=WITH_CORE_FILES)
    snapshot = await home.up(
        client,
        {
            "name": "a",
            "slot": "core:1",
            "env": {"MINE": "1"},
            "flags": ["--fork-child", "--busy", "--write-fds", str(fds)],
        },
    )
    status = snapshot.instances[0]
    assert status.verified is True, status.why
    assert status.pus == "1"
    family = home.engines()
    assert len(family) == 2
    assert status.pid in family
    for pid in family:
        assert allowed(pid) == {"1"}
        assert policies(pid) == {"bind:0"}
        assert oom_score(pid) == 300
        assert core_limit(pid) == "0"
        assert os.getsid(pid) == os.getpgid(pid) == status.pid
    shown = dict(line.split(" ", 1) for line in fds.read_text().splitlines())
    assert shown.pop("3") == "closed by now"  # the folder that it looked into to find out
    assert shown["0"] == "/dev/null"
    assert shown["1"] == shown["2"]
    assert shown["1"].startswith("pipe:")
    assert len(shown) == 3
    assert status.pid is not None
    names = {setting.partition(b"=")[0].decode() for setting in environment_of(status.pid)} - {""}
    assert {"PATH", "HOME", "MINE", "LC_ALL", "SLOTDECK_INSTANCE", "SLOTDECK_FOLDER"} <= names
    # Of the user's own variables only those that are named, or begin so, and nothing of ours.
    assert not names & {"PYTHONPATH", "HF_TOKEN", "OMP_NUM_THREADS", "SLOTDECK_SHIM"}
    assert working_folder(status.pid) == home.paths.instance("a")


async def test_a_thread_outside_of_the_slot_is_a_difference(home: Home) -> None:
    client = await home.connect()
    snapshot = await home.up(client, {"name": "a", "slot": "core:1", "flags": ["--repin", "0"]})
    status = snapshot.instances[0]
    assert status.verified is False
    assert "may run on PU 0, asked PU 1" in status.why


async def test_nothing_is_left_of_an_engine_that_forks_and_escapes(home: Home) -> None:
    client = await home.connect()
    port = free_ports(1)[0]
    flags = ["--fork-child", "--double-fork", "--hold-port", "--ignore-sigterm"]
    wish = {"name": "a", "port": port, "stop_grace_s": 0.3, "flags": flags}
    await home.up(client, wish)
    family = home.engines()
    assert len(family) == 3
    await home.apply(client, home.layout({"name": "b", "port": port}))
    await home.until_state(client, "b", State.READY)
    assert not [pid for pid in family if alive(pid)]
    told = [one.text for one in (await client.snapshot()).happenings]
    assert "a: stopped — killed after its grace" in told
    assert not any("somebody still listens" in text for text in told)
