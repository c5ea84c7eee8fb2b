"""Layout files: every key, and every mistake named by file, line and the nearest right word."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import LayoutError
from engine.core.layout import Load, Ports, parse_layout
from engine.core.layout_text.toml_lines import key_lines, line_of
from engine.core.likeness.fingerprint import Expect
from engine.drivers.registry import DRIVERS

ENGINES = {name: driver.weight_only for name, driver in DRIVERS.items()}

FULL = """\
# every key that there is
schema = 1
name = "Two replicas, one per NUMA node"

[defaults]
engine = "torch"
model = "bundled:smollm2-135m"
dtype = "bfloat16"
weight_only = "int8"
memory = "bind"
reserve_cores = 0
env = { KMP_BLOCKTIME = "1", SHARED = "default" }
args = { max-model-len = 2048 }
restart = "on-failure"
host = "127.0.0.1"
python = "/opt/torch/bin/python"
trust_remote_code = false
ready_timeout_s = 90
stop_grace_s = 7.5

[[instance]]
name = "a"
slot = "numa:0"
port = 8001

[[instance]]   # the second [one]
name = "b"
slot = "numa:1/core:0-15"
memory = "preferred"
reserve_cores = 1
env = { SHARED = "own" }
args = { max-num-seqs = 8, enforce-eager = true, swap-space = 0.5, "kv-cache" = "fp8" }
restart = "never"
allow_degraded = true

[[instance]]
name = "c"
engine = "command"
slot = "auto"
cores = 2
count = 2
command = ["server", "--port", "{port}"]
weight_only = "none"

[ports]
first = 9000
last = 9100

[expect]
packages = 2
numa_nodes = 2
gpus = ["Arc A770"]

[load]
concurrency = 2
input_len = 16
output_len = 24
"""


def test_every_key_is_read() -> None:
    layout = parse_layout(FULL, name="full.toml", engines=ENGINES)
    assert layout.name == "Two replicas, one per NUMA node"
    assert layout.ports == Ports(first=9000, last=9100)
    assert layout.expect == Expect(packages=2, numa_nodes=2, gpus=["Arc A770"])
    assert layout.load == Load(concurrency=2, input_len=16, output_len=24)
    a, b, c = layout.instances
    assert (a.name, a.engine, a.model, a.slot) == ("a", "torch", "bundled:smollm2-135m", "numa:0")
    assert (a.port, a.dtype, a.weight_only, a.memory) == (8001, "bfloat16", "int8", "bind")
    assert (a.reserve_cores, a.restart, a.host) == (0, "on-failure", "127.0.0.1")
    assert (a.python, a.trust_remote_code) == ("/opt/torch/bin/python", False)
    assert (a.ready_timeout_s, a.stop_grace_s, a.allow_degraded) == (90.0, 7.5, False)
    assert (b.memory, b.reserve_cores, b.restart) == ("preferred", 1, "never")
    assert (b.allow_degraded, b.port, b.count) == (True, None, None)
    assert (c.engine, c.cores, c.count) == ("command", 2, 2)
    assert c.command == ("server", "--port", "{port}")


def test_env_and_args_are_merged_with_the_defaults_and_other_keys_replaced() -> None:
    a, b, _ = parse_layout(FULL, name="full.toml").instances
    assert a.env == {"KMP_BLOCKTIME": "1", "SHARED": "default"}
    assert b.env == {"KMP_BLOCKTIME": "1", "SHARED": "own"}
    assert a.args == {"max-model-len": 2048}
    own = {"max-num-seqs": 8, "enforce-eager": True, "swap-space": 0.5, "kv-cache": "fp8"}
    assert b.args == {"max-model-len": 2048, **own}


def test_a_short_file_has_the_documented_defaults() -> None:
    layout = parse_layout('schema = 1\n[[instance]]\nname = "a"', name="short.toml")
    (a,) = layout.instances
    assert layout.name == "short.toml"
    assert layout.ports == Ports(first=8001, last=8999)
    assert (a.engine, a.slot, a.memory, a.restart) == ("torch", "auto", "bind", "on-failure")
    assert (a.dtype, a.weight_only, a.host, a.reserve_cores) == ("auto", "none", "127.0.0.1", None)
    assert not a.trust_remote_code


def test_other_ways_to_write_the_same() -> None:
    text = """\
schema = 1
defaults.engine = "torch"
defaults.env.A = "1"
instance = [
  { name = "a", slot = "numa:0" },
  { name = "b", slot = 'numa:1' },
]
"""
    a, b = parse_layout(text, name="inline.toml").instances
    assert (a.env, b.slot) == ({"A": "1"}, "numa:1")
    tables = 'schema = 1\n[[instance]]\nname = "a"\n[instance.env]\nB = "2"\n'
    assert parse_layout(tables, name="tables.toml").instances[0].env == {"B": "2"}


def mistake(text: str) -> LayoutError:
    with pytest.raises(LayoutError) as caught:
        parse_layout(text, name="x.toml", engines=ENGINES)
    assert caught.value.exit_code == 2
    return caught.value


def with_lines(*lines: str) -> str:
    return "\n".join(["schema = 1", "[[instance]]", 'name = "a"', *lines, ""])


@pytest.mark.parametrize(
    ("text", "line", "why", "do"),
    [
        # unknown keys, tables and values, with the nearest right word
        (with_lines('slto = "numa:0"'), 4, "'slto' is not a key of [[instance]]", "'slot'"),
        (with_lines("", "# slot =", 'Slot = "numa:0"'), 6, "'Slot' is not a key", "'slot'"),
        (
            with_lines('numa = "0"'),
            4,
            "'numa' is not a key",
            "It may hold: allocator, allow_degraded",
        ),
        (with_lines('dtype = "bf16"'), 4, "'bf16' is not a value of dtype", "'bfloat16'"),
        (with_lines('memory = "bnd"'), 4, "'bnd' is not a value of memory", "'bind'"),
        (with_lines('memory_limit = "24GB"'), 4, "'24GB' is not a size", '"24GiB"'),
        (with_lines('memory_limit = "0GiB"'), 4, "'0GiB' is not a size", '"24GiB"'),
        (
            with_lines("memory_limit = 24"),
            4,
            "memory_limit must be text in quotes",
            "memory_limit",
        ),
        (
            'schema = 1\n[defaults]\nmemory_limit = "x"\n[[instance]]\nname = "a"',
            *(3, "'x' is not a size", "MiB, GiB, TiB"),
        ),
        (
            with_lines("cpu_limit = 0"),
            4,
            "cpu_limit must be a number of at least 0.01",
            "cpu_limit",
        ),
        (with_lines('cpu_limit = "4"'), 4, "cpu_limit must be a number, not text", "cpu_limit"),
        (with_lines("oom_score_adj = 1001"), 4, "a whole number of at most 1000", "oom_score_adj"),
        (with_lines("oom_score_adj = -1001"), 4, "of at least -1000", "oom_score_adj"),
        (with_lines("core_dumps = 1"), 4, "core_dumps must be true or false", "core_dumps"),
        (with_lines('restart = "onfailure"'), 4, "not a value of restart", "'on-failure'"),
        (with_lines('engine = "troch"'), 4, "'troch' is not a value of engine", "'torch'"),
        (with_lines('weight_only = "int4"'), 4, "weight_only for the torch engine", "int8"),
        (with_lines('slot = "nuam:0"'), 4, "character 1: 'nuam' is not a place", "'numa'"),
        (with_lines("[default]", "x = 1"), 4, "'default' is not a key of the file", "'defaults'"),
        (with_lines("[[instances]]"), 4, "'instances' is not a key of the file", "'instance'"),
        (with_lines("[ports]", "fist = 1"), 5, "'fist' is not a key of [ports]", "'first'"),
        (with_lines("[expect]", "nodes = 1"), 5, "not a key of [expect]", "numa_nodes"),
        (with_lines("[load]", "streams = 1"), 5, "not a key of [load]", "concurrency"),
        ('sceham = 1\n[[instance]]\nname = "a"', 1, "'sceham' is not a key", "'schema'"),
        # defaults: the line is where the value was said
        (
            'schema = 1\n[defaults]\nslot = "x"\n[[instance]]\nname = "a"',
            *(3, "'x' is not a place", "A slot is one of"),
        ),
        (
            'schema = 1\n[defaults]\nengine = "x"\n[[instance]]\nname = "a"',
            *(
                3,
                "'x' is not a value of engine",
                "It may be: torch, ipex, vllm-cpu, vllm-xpu, ipex-llm, command",
            ),
        ),
        ('schema = 1\n[defaults]\nname = "x"', 3, "'name' is not a key of [defaults]", "hold"),
        (
            "schema = 1\n[defaults]\ndtype = 16",
            3,
            "16 is not a value",
            "auto",
        ),
        # wrong types
        (with_lines('port = "8001"'), 4, "port must be a whole number, not text", "port"),
        (with_lines("port = 8001.0"), 4, "port must be a whole number, not a number", "port"),
        (with_lines("port = true"), 4, "port must be a whole number, not true or false", "port"),
        (with_lines("port = 0"), 4, "port must be a whole number of at least 1", "port"),
        (with_lines("port = 65536"), 4, "port must be a whole number of at most 65535", "port"),
        (with_lines("count = 0"), 4, "count must be a whole number of at least 1", "count"),
        (with_lines("slot = 3"), 4, "slot must be text in quotes, not a whole number", "slot"),
        (with_lines("restart = [1]"), 4, "is not a value of restart", "never"),
        (with_lines("model = 2026-01-01"), 4, "model must be text in quotes, not a date", "model"),
        (with_lines('command = "x"'), 4, "command must be a list, not text", "command"),
        (with_lines("command = [", ' "a",', " 1]"), 6, "command must be text in quotes", "comm"),
        (with_lines("ready_timeout_s = 0"), 4, "must be a number above 0", "ready_timeout_s"),
        (with_lines("ready_timeout_s = nan"), 4, "must be a number above 0", "ready_timeout_s"),
        (with_lines("ready_timeout_s = inf"), 4, "of at most 1000000", "ready_timeout_s"),
        (with_lines("stop_grace_s = -1"), 4, "must be a number of at least 0", "stop_grace_s"),
        (with_lines("allow_degraded = 1"), 4, "must be true or false", "allow_degraded"),
        (with_lines('host = ""'), 4, "host must be text", "host"),
        ("schema = 1\n[instance]\nname = 'a'", 2, "two pairs of brackets", "[[instance]]"),
        ("schema = 1\ninstance = 3", 2, "instance must be a list, not a whole number", "inst"),
        ("schema = 1\ninstance = [3]", 2, "instance must be a table", "instance"),
        ("schema = '1'", 1, "schema must be a whole number, not text", "schema"),
        ("schema = 1\nports = 3", 2, "ports must be a table", "ports"),
        ("schema = 1\n[expect]\ngpus = [\n 'a',\n 1]", 5, "gpus must be text in quotes", "gpus"),
        # env and args
        (with_lines("env = { A = 1 }"), 4, "A must be text in quotes", 'A = "1"'),
        (with_lines('env = { A = "1", B = true }'), 4, "B must be text in quotes", 'B = "true"'),
        (with_lines("[instance.env]", 'A = "1"', "B = 2"), 6, "B must be text", 'B = "2"'),
        (with_lines("env.A = 1"), 4, "A must be text", 'A = "1"'),
        (with_lines("env = 1"), 4, "env must be a table", "env"),
        (with_lines('env = { "A B" = "1" }'), 4, "'A B' cannot be a variable's name", "letters"),
        (with_lines('env = { "A=B" = "1" }'), 4, "cannot be a variable's name", "letters"),
        (with_lines('env = { "" = "1" }'), 4, "cannot be a variable's name", "letters"),
        (with_lines('args = { "--x" = 1 }'), 4, "'--x' cannot be a flag's name", "dashes"),
        (with_lines("args = { x = [1] }"), 4, "x must be true or false or a whole number", "x"),
        (with_lines("args = { x = 1, y = {} }"), 4, "y must be", "y"),
        (with_lines('args = { api-key = "k" }'), 4, "would show the secret", "VLLM_API_KEY"),
        (with_lines("args = { x = 99999999999999999999 }"), 4, "more than 64 bits", "smaller"),
        (with_lines('model = "a\\u0000b"'), 4, "NUL", "Remove"),
        # names
        (with_lines('[[instance]]\nname = "a"'), 5, "two instances are named 'a'", "own name"),
        (with_lines('[[instance]]\nslot = "auto"'), 4, "[[instance]] has no name", "Add name"),
        ('schema = 1\n[[instance]]\nname = ""', 3, "'' cannot be a name", "name"),
        ('schema = 1\n[[instance]]\nname = "a/b"', 3, "'a/b' cannot be a name", "name"),
        ('schema = 1\n[[instance]]\nname = "../a"', 3, "cannot be a name", "name"),
        ('schema = 1\n[[instance]]\nname = "a\\n"', 3, "cannot be a name", "name"),
        (f'schema = 1\n[[instance]]\nname = "{"n" * 64}"', 3, "1 to 63 letters", "name"),
        ("schema = 1\n[[instance]]\nname = 5", 3, "name must be text in quotes", "name"),
        ("schema = 1\nname = 5\n[[instance]]\nname = 'a'", 2, "name must be text", "name"),
        # what does not fit together
        (with_lines('slot = "numa:0"', "count = 2"), 5, "would put every copy on the one", "each"),
        (with_lines('slot = "numa:0"', "cores = 2"), 5, "cores = 2", "numa:0/core:0-1"),
        (with_lines('slot = "pu:0"', "cores = 2"), 5, "cores = 2", "numa:0/core:0-1"),
        (with_lines('slot = "gpu:0"', "gpus = 2"), 5, "gpus = 2", 'slot = "gpu:0,1"'),
        (with_lines('count = "fill"'), 4, "how large each copy is", "cores = 4"),
        (with_lines('count = "fil"'), 4, "count", "fill"),
        (with_lines('strategy = "spred"'), 4, "strategy", "Did you mean 'spread'?"),
        (with_lines('core_kind = "p"'), 4, "core_kind", "any, efficiency, performance"),
        (
            'schema = 1\n[defaults]\ncores = 2\n[[instance]]\nname = "a"\nslot = "each numa"',
            *(3, "cores = 2", "Leave cores out"),
        ),
        (with_lines("[ports]", "first = 9000", "last = 8000"), 5, "[ports] runs backwards", "Put"),
        (with_lines("[ports]", "last = 8000"), 5, "8001 to 8000", "Put"),
        (with_lines('engine = "command"'), 4, "and a has none", "Add command ="),
        # the file as a whole
        ('[[instance]]\nname = "a"', 1, "the file has no schema", "Add schema"),
        ('\n\nschema = 2\n[[instance]]\nname = "a"', 3, "schema 2 is not known", "schema = 1"),
        ("schema = 1", 1, "it has no [[instance]]", "Add at least one"),
        ("", 1, "the file has no schema", "Add schema"),
        ("# nothing but a comment\n", 1, "the file has no schema", "Add schema"),
        ("schema = 1\ninstance = []", 1, "it has no [[instance]]", "Add"),
        # positions that a search for the key would miss
        (
            'schema = 1\nname = """\n[[instance]]\nslot = 1\n"""\n[[instance]]\nname="a"\nslot=2',
            *(8, "slot must be text", "slot"),
        ),
        (
            "schema = 1\ninstance = [\n {name='a'},\n # slot\n {name='b', slot='x'},\n]",
            *(5, "'x' is not a place", "slot"),
        ),
        (
            "schema = 1\r\n[[instance]] # [[x]]\r\nname='a'\n[[instance]]\r\nname='b'\r\nslot='x'",
            *(6, "'x' is not a place", "slot"),
        ),
        (
            'schema = 1\n[["instance"]]\n"name" = \'a\'\n\'slot\' = "x"',
            4,
            "'x' is not a pl",
            "slot",
        ),
        (
            with_lines("slot.x = 1"),
            4,
            "slot must",
            "slot",
        ),
        (
            "schema = 1\ndefaults.dtpye = 'auto'",
            2,
            "'dtpye' is not a key of [defaults]",
            "'dtype'",
        ),
        (with_lines('"foo - at `$.instance[0]`" = 1'), 4, "is not a key of [[instance]]", "hold"),
        ('schema = 1\n"foo - at `$.instance[0]" = 1', 2, "is not a key of the file", "hold"),
    ],
)
def test_a_mistake_names_file_line_and_right_word(text: str, line: int, why: str, do: str) -> None:
    error = mistake(text)
    assert error.what == f"x.toml, line {line} has a mistake"
    assert why in error.why
    assert do in error.do


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("schema = 1\nname = \n", 2),
        ("schema = 1\n\n[[instance]\n", 3),
        ("schema = 1\nschema = 2\n", 2),
        ('schema = 1\nname = "open\n', 2),
        ("schema = 1\nname = '''open\n\n", 2),
        ("schema = 1\n[a]\n[a]\n", 3),
        ("schema = 1\nx = 2026-99-99\n", 2),
        ("\x00", 1),
        ("PK\x03\x04 not text", 1),
    ],
)
def test_what_is_not_toml_names_the_line(text: str, line: int) -> None:
    assert mistake(text).what == f"x.toml, line {line} is not TOML"


def test_absurd_numbers_and_depths_are_mistakes_too() -> None:
    assert "is not TOML" in mistake("schema = " + "9" * 5000).what
    assert "too deep" in mistake("x = " + "[" * 100_000).why
    assert "too deep" in mistake("x = " + "{a=" * 100_000).why
    assert mistake("\nx = " + "[" * 9_000).what == "x.toml, line 2 is not TOML"
    many = mistake('schema = 1\n[[instance]]\nname = "a"\nport = ' + "9" * 5000)
    assert many.what == "x.toml, line 4 is not TOML"
    assert many.why == "a number of 5000 digits is more than can be read"
    for key in ("schema", "dtype", "env.a"):
        error = mistake(f"{key} = 0x{'f' * 9_000}")
        assert (error.what, len(error.why) < 60) == ("x.toml, line 1 has a mistake", True)
    assert mistake("schema = 99999999999999999999").why == (
        "schema 99999999999999999999 is not known to this version"
    )


def test_long_garbage_is_shortened() -> None:
    error = mistake(with_lines(f'slot = "{"x" * 5000}"'))
    assert len(str(error)) < 1000
    error = mistake(with_lines(f'{"k" * 5000} = "x"'))
    assert len(str(error)) < 1000
    error = mistake(f'schema = 1\n[[instance]]\nname = "{"n" * 5000}"')
    assert len(str(error)) < 1000
    error = mistake(with_lines('slot = "numa:0"', "gpus = 4096"))
    assert error.do.endswith('slot = "gpu:0-4095"')


def test_the_scanner_finds_each_key() -> None:
    lines = key_lines(FULL)
    written = FULL.splitlines()
    for path, line in lines.items():
        key = next(part for part in reversed(path) if not part.isdigit())
        assert key in written[line - 1]
    assert (
        line_of(lines, ("instance", "1", "args", "kv-cache"))
        == written.index(next(text for text in written if "kv-cache" in text)) + 1
    )
    assert line_of(lines, ("instance", "2", "nothing")) == 36
    assert line_of(lines, ()) == 1


shipped = sorted((Path(__file__).parents[2] / "layouts").glob("*.toml"))


@pytest.mark.parametrize("path", shipped, ids=lambda path: path.name)
def test_shipped_layouts_are_right_and_say_their_idea_first(path: Path) -> None:
    text = path.read_text()
    assert parse_layout(text, name=path.name, engines=ENGINES).instances
    assert re.match(r"# \w", text)


snippets = st.sampled_from(
    [
        *('"', "'", "[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "#", '"""', "\\", "\0"),
        *("schema", "instance", "name", "env", "args", "true", "1e400", "-0", "nan", "inf", "²"),
        *("[instance]", "[[instance]]\n", "[ports]\n", "99999999999999999999", "1979-05-27"),
        *(
            "a.b.c = 1\n",
            "env = 3\n",
            "slot = 'gpu:'\n",
            "\ufeff",
            "\r",
            "\x85",
            "[instance.env]\n",
        ),
    ]
)


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(FULL)), st.integers(0, 12), st.one_of(snippets, st.text(max_size=4))
        ),
        min_size=1,
        max_size=4,
    )
)
def test_only_layout_errors_escape(edits: list[tuple[int, int, str]]) -> None:
    text = FULL
    for at, gone, new in edits:
        text = text[:at] + new + text[at + gone :]
    if error := _error(text):
        number = re.match(r"fuzz.toml, line (\d+) ", error.what)
        assert number
        assert 1 <= int(number[1]) <= text.count("\n") + 1
        assert error.why
        assert error.do


def _error(text: str) -> LayoutError | None:
    try:
        parse_layout(text, name="fuzz.toml", engines=ENGINES)
    except LayoutError as error:
        return error
    return None


@given(st.text(max_size=60))
def test_the_scanner_ends_on_any_text(text: str) -> None:
    for line in key_lines(text).values():
        assert 1 <= line <= text.count("\n") + 1
