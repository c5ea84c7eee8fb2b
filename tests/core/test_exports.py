"""Exports of a plan: whatever a layout may hold comes out of each form as it went in."""

import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.command import SHELL, Command, Setting, is_secret
from engine.core.cpuset import CpuSet
from engine.core.exports.bash import bash_script
from engine.core.exports.common import Export, Subject, export_of, one_line
from engine.core.exports.compose import compose_file
from engine.core.exports.haproxy import CannotBeProxied, haproxy_config
from engine.core.exports.systemd import TARGET, quoted, systemd_units, unit_name
from engine.core.layout import NAME, VARIABLE, Instance
from engine.core.placement import Placement
from engine.core.status import MemoryBinding
from engine.core.topology import Machine
from tests.machines_by_hand import build

MACHINE = build([4, 4], gpus_on=[0, 1, 1])

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
"""What TOML lets into a layout's strings, and a program can be given."""
hard = st.sampled_from(
    [
        *("", " ", "'", '"', "\\", "$HOME", "${A:?x}", "$$", "%h", "%%", "a\nb", "\r", "\t", ";"),
        *(
            "`id`",
            "$(id)",
            "\\n",
            "'\n#",
            "\x01\x7f",
            "\x1b[0m",
            "\x85\u2028\ufeff",
            "😀",
            "=",
            "-",
        ),
        *("#", "a\\", "!x", "*", "~", "a: b", "- c", "{d}", "é\u202e", "--flag", "null", "EOF\n"),
    ]
)
words = hard | texts
names = st.from_regex(NAME, fullmatch=True)
variables = st.from_regex(rf"\A{VARIABLE}\Z").filter(lambda name: not is_secret(name))


def subject(
    name: str = "a",
    *,
    argv: tuple[str, ...] = ("server", "--port", "8001"),
    env: dict[str, Setting] | None = None,
    model: str = "m",
    pus: str = "0-3",
    memory: tuple[str, str] = ("bind", "0"),
    gpus: tuple[int, ...] = (),
    port: int = 8001,
    grace_s: float = 10.0,
    host: str = "127.0.0.1",
    restart: str = "on-failure",
    health: str = "/health",
    reasons: tuple[str, ...] = ("it is free",),
    more: dict[str, Any] | None = None,
) -> Subject:
    wish = Instance(
        name=name,
        engine="command",
        model=model,
        slot="numa:0",
        host=host,
        restart=restart,
        **(more or {}),
    )
    placement = Placement(
        instance=name,
        engine="command",
        slot="numa:0",
        pus=CpuSet.parse(pus),
        memory=MemoryBinding(*memory),
        gpus=gpus,
        tensor_parallel=max(1, len(gpus)),
        port=port,
        reasons=reasons,
        limits=wish.limits,
    )
    return Subject(wish, placement, Command(argv, env or {}), model, health, grace_s)


def export(*subjects: Subject, machine: Machine = MACHINE, layout: str = "l") -> Export:
    return export_of(subjects, machine, layout=layout, version="1.2.3")


def asked(**values: str) -> dict[str, Setting]:
    return {name: Setting(value, "layout") for name, value in values.items()}


def every_form(made: Export) -> dict[str, str]:
    return {
        "bash": bash_script(made),
        "systemd": "\n".join(systemd_units(made).values()),
        "compose": compose_file(made),
        "haproxy": haproxy_config(made),
    }


# What all have in common


def test_the_first_comment_tells_layout_machine_and_version_and_no_time() -> None:
    for text in every_form(export(subject())).values():
        assert "# Layout: l\n" in text
        assert "# Machine: 2 packages, 2 NUMA nodes, 8 cores, 8 PUs, 3 GPUs\n" in text
        assert "# Made by slotdeck 1.2.3: " in text
    assert every_form(export(subject())) == every_form(export(subject()))


@given(words, words)
def test_no_comment_ends_early(layout: str, reason: str) -> None:
    made = every_form(export(subject(reasons=(reason,)), layout=layout))
    plain = every_form(export(subject(reasons=("x",)), layout="x"))
    for form, text in made.items():
        code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        wanted = [line for line in plain[form].splitlines() if not line.lstrip().startswith("#")]
        assert code == wanted
    assert one_line(reason).isprintable()


def test_what_stood_in_the_shell_is_left_out() -> None:
    env = {"PATH": Setting("/shell", SHELL), "KMP_X": Setting("/mine", "driver: torch")}
    for form, text in every_form(export(subject(env=env))).items():
        assert "/shell" not in text
        assert ("/mine" in text) == (form != "haproxy")


def test_a_secret_becomes_a_reference_in_every_form() -> None:
    one = subject(
        argv=("server", "--api-key", "sk-1", "--hf-token=hf-2", "--x"),
        env=asked(HF_HUB_TOKEN="hf-3", EMPTY_TOKEN=""),
    )
    made = export(one)
    for text in every_form(made).values():
        assert not re.search("sk-1|hf-2|hf-3|redacted", text)
    script = bash_script(made)
    assert ': "${API_KEY:?set it: a will not start without}"\n' in script
    assert '--api-key "${API_KEY}"' in script
    assert '--hf-token="${HF_TOKEN}"' in script
    assert "export HF_HUB_TOKEN\n" in script
    assert "EMPTY_TOKEN=" in script
    unit = systemd_units(made)["slotdeck-a.service"]
    assert "EnvironmentFile=/etc/slotdeck/slotdeck-a.env\n" in unit
    assert '"--api-key" "${API_KEY}"' in unit
    assert '"--hf-token=${HF_TOKEN}"' in unit
    assert all(f"#   {name}=…\n" in unit for name in ("HF_HUB_TOKEN", "API_KEY", "HF_TOKEN"))
    assert '"HF_HUB_TOKEN=${HF_HUB_TOKEN:?set it}"' in compose_file(made)
    assert '"--hf-token=${HF_TOKEN:?set it}"' in compose_file(made)


def test_instances_with_different_secrets_get_different_references() -> None:
    made = export(
        subject("a", env=asked(HF_TOKEN="same", VLLM_API_KEY="1")),
        subject("1-b", env=asked(HF_TOKEN="same", VLLM_API_KEY="2")),
        subject("1_b", env=asked(HF_TOKEN="same", VLLM_API_KEY="3")),
    )
    wanted = [
        ("HF_TOKEN", "A_VLLM_API_KEY"),
        ("HF_TOKEN", "_1_B_VLLM_API_KEY"),
        ("HF_TOKEN", "_1_B_VLLM_API_KEY_2"),
    ]
    assert [one.secrets for one in made.instances] == wanted
    assert 'export VLLM_API_KEY="$A_VLLM_API_KEY"\n' in bash_script(made)


def test_a_mask_counts_from_0_only_where_the_other_gpus_cannot_be_opened() -> None:
    driver = {"ZE_AFFINITY_MASK": Setting("1,2", "driver: vllm-xpu")}
    ours = every_form(export(subject(gpus=(1, 2), env=driver)))
    assert "ZE_AFFINITY_MASK=1,2 " in ours["bash"]
    assert '"ZE_AFFINITY_MASK=0,1"\n' in ours["systemd"]
    assert '"ZE_AFFINITY_MASK=0,1"\n' in ours["compose"]
    theirs = every_form(export(subject(gpus=(1, 2), env=asked(ZE_AFFINITY_MASK="1,2"))))
    assert '"ZE_AFFINITY_MASK=1,2"\n' in theirs["systemd"]
    hidden = replace(MACHINE, gpus=tuple(replace(gpu, drm_render=None) for gpu in MACHINE.gpus))
    unknown = every_form(export(subject(gpus=(1, 2), env=driver), machine=hidden))
    assert '"ZE_AFFINITY_MASK=1,2"\n' in unknown["systemd"]
    assert "DevicePolicy" not in unknown["systemd"]
    assert '      - "/dev/dri"\n' in unknown["compose"]


# bash


def run_parts(script: str, instance: int, folder: str, path: str) -> list[str]:
    """What the kernel would be given: numactl's words, by a numactl that prints them."""
    head, _, _ = script.partition("\nnames=(")
    done = subprocess.run(
        ["bash", "-c", f"{head}\nrun_{instance}\n"],
        env={"PATH": path, "SLOTDECK_LOGS": folder},
        capture_output=True,
        check=True,
        timeout=60,
    )
    *shown, last = done.stdout.decode().split("\0")
    assert last == ""
    return shown


@pytest.fixture(scope="module")
def printing(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A folder for logs, and a PATH whose numactl prints its words."""
    folder = tmp_path_factory.mktemp("printing")
    for name, text in (("numactl", '#!/bin/sh\nprintf "%s\\0" "$@"\n'),):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return str(folder / "logs"), f"{folder}:/usr/bin:/bin"


@settings(max_examples=30)
@given(
    names, st.lists(words, min_size=1, max_size=5), st.dictionaries(variables, words, max_size=3)
)
def test_bash_reads_every_word_as_it_was(
    printing: tuple[str, str], name: str, argv: list[str], env: dict[str, str]
) -> None:
    script = bash_script(export(subject(name, argv=tuple(argv), env=asked(**env))))
    got = run_parts(script, 0, *printing)
    settings_ = [f"{name}={value}" for name, value in env.items()]
    through = ["sh", "-c", 'exec "$@"', "sh"] if "=" in argv[0] else []
    assert got == ["-C", "0-3", "-m", "0", "env", "--", *settings_, *through, *argv]
    assert f"\nnames=({shlex.quote(name)})\n" in script


@given(names, st.lists(words, min_size=1, max_size=5))
def test_the_words_of_the_script_can_be_split_by_shlex(name: str, argv: list[str]) -> None:
    script = bash_script(export(subject(name, argv=tuple(argv))))
    body = script[script.index("exec ") : script.index("\n}\n\nnames=")]
    through = ["sh", "-c", 'exec "$@"', "sh"] if "=" in argv[0] else []
    lexer = shlex.split(re.sub(r"^(.*?) \\\n    env -- \\\n    ", "", body, flags=re.DOTALL))
    # shlex keeps the newline of a continued line as a word.
    assert [word for word in lexer if word != "\n"] == [
        word for word in (*through, *argv) if word != "\n"
    ]


@pytest.mark.parametrize(
    ("memory", "flags"),
    [
        (("bind", "0-1"), ["-m", "0-1"]),
        (("preferred", "1"), ["-p", "1"]),
        (("interleave", "0,2"), ["-i", "0,2"]),
        (("local", ""), ["-l"]),
        (("weighted-interleave", "0-1"), ["-w", "0-1"]),
    ],
)
def test_every_memory_policy_has_its_words(
    printing: tuple[str, str], memory: tuple[str, str], flags: list[str]
) -> None:
    made = export(subject(memory=memory, pus="0-1,7"))
    assert run_parts(bash_script(made), 0, *printing) == [
        *("-C", "0-1,7", *flags),
        *("env", "--", "server", "--port", "8001"),
    ]
    unit = systemd_units(made)["slotdeck-a.service"]
    if memory[0] == "weighted-interleave":  # of which systemd does not know
        assert 'ExecStart="/usr/bin/numactl" \\\n  "-w" "0-1" \\\n  "--" "server"' in unit
        assert "NUMAPolicy" not in unit
    else:
        assert f"NUMAPolicy={memory[0]}\n" in unit
        assert (f"NUMAMask={memory[1]}\n" in unit) == bool(memory[1])
    assert "CPUAffinity=0-1,7\n" in unit
    assert ('"numactl"' in compose_file(made)) == (memory[0] != "local")


def test_a_refused_memory_policy_is_no_obstacle_where_the_layout_allows_it(
    printing: tuple[str, str], tmp_path: Path
) -> None:
    one = subject(pus="0")
    one = replace(one, wish=msgspec.structs.replace(one.wish, allow_degraded=True))
    refusing = "#!/bin/sh\necho refused >&2; exit 1\n"
    printing_too = '#!/bin/sh\nprintf "%s\\0" taskset "$@"\n'
    for name, text in (("numactl", refusing), ("taskset", printing_too)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    script = bash_script(export(one))
    logs, path = printing
    got = run_parts(script, 0, logs, f"{tmp_path}:{path}")
    assert got == ["taskset", "-c", "0", "env", "--", "server", "--port", "8001"]


# systemd


def unquoted(text: str) -> list[str]:
    """The words of a setting, by the rules of systemd.syntax(7) and of specifiers."""
    found: list[str] = []
    for quote in re.findall(r'"((?:[^"\\]|\\.)*)"', text):
        raw = re.sub(
            r"\\(x[0-9a-f]{2}|.)",
            lambda part: chr(int(part[1][1:], 16)) if part[1][0] == "x" else part[1],
            "".join(chr(byte) for byte in quote.encode()),
        )
        assert "%" not in raw.replace("%%", "")
        found.append(raw.encode("latin-1").decode().replace("%%", "%"))
    return found


def setting(unit: str, key: str) -> str:
    """The value of a setting, its continued lines joined."""
    (value,) = re.findall(rf"^{key}=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    return str(value).replace("\\\n", " ")


@given(
    names, st.lists(words, min_size=1, max_size=5), st.dictionaries(variables, words, max_size=3)
)
def test_systemd_reads_every_word_as_it_was(
    name: str, argv: list[str], env: dict[str, str]
) -> None:
    made = export(subject(name, argv=tuple(argv), env=asked(**env)))
    unit = systemd_units(made)[unit_name(name)]
    first, *rest = unquoted(setting(unit, "ExecStart"))
    if first == "/bin/sh":
        assert rest[:3] == ["-c", 'exec "$$@"', "sh"]
        first, rest = rest[3].replace("$$", "$"), rest[4:]
    assert [first, *(word.replace("$$", "$") for word in rest)] == argv
    assert all("$" not in word.replace("$$", "") for word in rest)
    lines = [line for line in unit.splitlines() if line.startswith("Environment=")]
    assert [unquoted(line) for line in lines] == [[f"{n}={value}"] for n, value in env.items()]


def test_a_target_wants_every_unit() -> None:
    units = systemd_units(export(subject("a"), subject("b.c-1")))
    assert list(units) == [TARGET, "slotdeck-a.service", "slotdeck-b.c-1.service"]
    assert "Wants=slotdeck-a.service\nWants=slotdeck-b.c-1.service\n" in units[TARGET]
    assert all("PartOf=slotdeck.target\n" in units[name] for name in list(units)[1:])


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="no systemd-escape here")
def test_unit_names_are_escaped_as_systemd_does() -> None:
    for name in ("a", "b.c_d", "a b", "ü", "x/y", "50%"):
        done = subprocess.run(
            ["systemd-escape", f"x{name}"], capture_output=True, text=True, check=True
        )
        # It writes "/" as "-", which would no longer be told from a dash of the name.
        wanted = done.stdout.strip().removeprefix("x").replace("x-y", r"x\x2fy")
        assert unit_name(name) == f"slotdeck-{wanted}.service"


def test_grace_restart_devices_and_account() -> None:
    made = export(
        subject("a", grace_s=0.0, restart="never", gpus=(1, 2)),
        subject("b", grace_s=2.5, restart="always"),
        subject("c", grace_s=1e6),
    )
    units = systemd_units(made, account="llm")
    a, b, c = (units[f"slotdeck-{name}.service"] for name in "abc")
    assert "TimeoutStopSec=1ms\n" in a, "0 would wait for ever"
    assert "TimeoutStopSec=2500ms\n" in b
    assert "TimeoutStopSec=1000000s\n" in c
    assert ("Restart=no\n" in a, "Restart=always\n" in b) == (True, True)
    both = "DeviceAllow=/dev/dri/renderD129 rw\nDeviceAllow=/dev/dri/renderD130 rw\n"
    assert f"DevicePolicy=closed\n{both}" in a
    assert "Device" not in b
    assert "\nUser=llm\n" in a
    assert "\nUser=" not in systemd_units(made, account="a b")["slotdeck-a.service"]
    compose = compose_file(made)
    assert '      - "/dev/dri/renderD130"\n' in compose
    assert [line.split()[1] for line in compose.splitlines() if "restart:" in line] == [
        *('"no"', '"unless-stopped"', '"on-failure:5"')
    ]
    assert "\ngrace=(1 25 10000000)\n" in bash_script(made)


LIMITED = {
    "memory_limit": "24GiB",
    "cpu_limit": 2.5,
    "oom_score_adj": 500,
    "core_dumps": True,
}


def test_limits_stand_in_every_form(tmp_path: Path) -> None:
    made = export(subject(more=LIMITED), subject("b"))
    unit, other = (systemd_units(made)[f"slotdeck-{name}.service"] for name in "ab")
    for line in ("MemoryMax=25769803776", "MemorySwapMax=0", "CPUQuota=250%"):
        assert f"{line}\n" in unit
        assert line.partition("=")[0] not in other
    assert "OOMScoreAdjust=500\n" in unit
    assert "LimitCORE=infinity\n" in unit
    assert "OOMScoreAdjust=300\n" in other
    assert "LimitCORE=0\n" in other
    compose = compose_file(made)
    assert compose.count("    mem_limit: 25769803776\n    memswap_limit: 25769803776\n") == 1
    assert compose.count('    cpus: "2.5"\n') == 1
    assert re.findall(r"oom_score_adj: (\d+)", compose) == ["500", "300"]
    assert re.findall(r"core: (\S+)", compose) == ["-1", "0"]
    script = bash_script(made)
    assert "\noom=(500 300)\ncore=(hard 0)\n" in script


def scripts_of_limits(tmp_path: Path, *, works: bool) -> str:
    """A PATH with a systemd-run that prints its words, or fails, and such a numactl."""
    printing = '#!/bin/sh\n[ "$*" = "--scope --quiet true" ] && exit\n'
    printing += '[ "$*" = "--user --scope --quiet true" ] && exit\nprintf "%s\\0" "$@"\n'
    for name, text in (
        ("systemd-run", printing if works else "#!/bin/sh\nexit 1\n"),
        ("numactl", '#!/bin/sh\nprintf "%s\\0" "$@"\n'),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}:/usr/bin:/bin"


def test_a_script_limits_by_systemd_or_starts_nothing(tmp_path: Path) -> None:
    strict = bash_script(export(subject(more=LIMITED), subject("b")))
    lax = bash_script(export(subject(more={**LIMITED, "allow_degraded": True})))
    path = scripts_of_limits(tmp_path, works=True)
    words = run_parts(strict, 0, str(tmp_path / "logs"), path)
    rest = ["numactl", "-C", "0-3", "-m", "0", "env", "--", "server", "--port", "8001"]
    assert [word for word in words if word != "--user"] == [
        *("--scope", "--quiet", "-p", "MemoryMax=25769803776", "-p", "MemorySwapMax=0"),
        *("-p", "CPUQuota=250%", "--", *rest),
    ]
    assert run_parts(strict, 1, str(tmp_path / "logs"), path) == rest[1:]
    path = scripts_of_limits(tmp_path, works=False)
    words = run_parts(lax, 0, str(tmp_path / "logs"), path)
    assert words[3:] == rest[1:], "after numactl was asked whether it can"
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run_parts(strict, 1, str(tmp_path / "logs"), path)
    assert failed.value.stderr.decode().splitlines()[-1] == "not started: a must be limited"


def test_a_quoted_word_is_one_line() -> None:
    assert quoted('a"\\\n%$\u2028') == r'"a\"\\\x0a%%$\xe2\x80\xa8"'


# compose

KEYS = {
    *("image", "entrypoint", "command", "environment", "cpuset", "ports", "cap_add", "volumes"),
    *("devices", "group_add", "shm_size", "ulimits", "oom_score_adj", "init", "restart"),
    *("stop_grace_period", "mem_limit", "memswap_limit", "cpus"),
}


@given(
    names, st.lists(words, min_size=1, max_size=5), st.dictionaries(variables, words, max_size=3)
)
def test_yaml_reads_every_word_as_it_was(name: str, argv: list[str], env: dict[str, str]) -> None:
    yaml = pytest.importorskip("yaml")
    one = replace(subject(name, argv=tuple(argv), env=asked(**env)), folders=("/m\n$x: y",))
    page = yaml.safe_load(compose_file(export(one)))
    assert list(page) == ["services"]
    assert list(page["services"]) == [name]
    service = page["services"][name]
    assert set(service) <= KEYS
    assert service["entrypoint"] == ["numactl", "-m", "0"]
    literal = [word.replace("$$", "$") for word in service["command"]]
    assert literal == argv
    assert all("$" not in word.replace("$$", "") for word in service["command"])
    assert [word.replace("$$", "$") for word in service["environment"]] == [
        f"{variable}={value}" for variable, value in env.items()
    ]
    assert service["cpuset"] == "0-3"
    assert service["volumes"][0]["source"] == "/m\n$$x: y"
    assert service["volumes"][0]["read_only"] is True


@pytest.mark.parametrize(
    ("host", "published"),
    [
        ("127.0.0.1", "127.0.0.1:8001:8001"),
        ("0.0.0.0", "0.0.0.0:8001:8001"),
        ("::", "[::]:8001:8001"),
        ("localhost", "127.0.0.1:8001:8001"),
        ('x"\ny', "127.0.0.1:8001:8001"),
    ],
)
def test_a_port_is_published_where_the_layout_says(host: str, published: str) -> None:
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load(compose_file(export(subject(host=host))))["services"]["a"]
    assert service["ports"] == [published]


# haproxy


def test_replicas_share_a_frontend_and_models_do_not() -> None:
    text = haproxy_config(
        export(
            subject("a", model="m", port=8001),
            subject("b", model="n", port=8002, host="0.0.0.0"),
            subject("c", model="m", port=8003, host="::1"),
        ),
        first_port=8000,
    )
    binds = [line.split()[1] for line in text.splitlines() if line.startswith("  bind")]
    assert binds == ["127.0.0.1:8000", "127.0.0.1:8004"], "those of the instances are taken"
    backend = text[text.index("backend m-replicas") :]
    assert "  server a 127.0.0.1:8001\n  server c [::1]:8003\n" in backend
    assert "  server b 127.0.0.1:8002\n" in text
    assert "each model has a port of its own" in text
    assert "#   http://127.0.0.1:8000 m, 2 replicas\n" in text


def test_replicas_with_different_health_paths_are_asked_for_their_models() -> None:
    text = haproxy_config(export(subject("a"), subject("b", health="/ping", port=8002)))
    assert "  option httpchk GET /v1/models\n" in text


@pytest.mark.parametrize("host", ["a b", "x\n", "1.2.3.4 check", ""])
def test_no_host_gets_into_the_configuration_as_words(host: str) -> None:
    with pytest.raises(CannotBeProxied, match="is no address"):
        haproxy_config(export(subject(host=host)))


def test_ports_end() -> None:
    with pytest.raises(CannotBeProxied, match="free ports"):
        haproxy_config(export(subject(model="m"), subject("b", model="n")), first_port=65535)


@given(st.lists(words, min_size=1, max_size=4))
def test_any_model_name_makes_lawful_sections(models: list[str]) -> None:
    text = haproxy_config(export(*(subject(f"i{at}", model=one) for at, one in enumerate(models))))
    sections = re.findall(r"^(?:frontend|backend) (.*)$", text, re.MULTILINE)
    assert len(sections) == len(set(sections)) == 2 * len({*models})
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in sections)
