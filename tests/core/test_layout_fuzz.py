"""Layout files damaged in every way: each is taken, or refused with file, line and right word.

The default run takes a sample, the same one each time; SLOTDECK_FUZZ=all takes every case.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cli.layouts import checked
from engine.core.command import Command, is_secret, shown_argv
from engine.core.errors import ControlError, LayoutError
from engine.core.layout import Instance, InstanceWish, Layout, Load, Ports, parse_layout
from engine.core.layout_edit import edited, written
from engine.core.likeness.fingerprint import fingerprint
from engine.core.placement import place
from engine.core.synthetic import parse_synthetic
from engine.layout_files import read_layout
from engine.service.orders import Surroundings
from engine.service.planning import TRAITS, plan_layout
from tests.core.random_machines import slots
from tests.machines_by_hand import MACHINES, build

EVERY = os.environ.get("SLOTDECK_FUZZ") == "all"  # noqa: TID251 - the tests' own setting
CASES = 10_000 if EVERY else 1_500
GROUPS = 10
LONGEST_S = 5.0
"""Of one case; they take milliseconds, and a shared machine may stall for seconds."""
LONGEST_WORDS = 2_000

SHIPPED = sorted((Path(__file__).parents[2] / "layouts").glob("*.toml"))
PLACES = (
    parse_synthetic("pack:2 numa:2 core:4 pu:2 gpu:1*16GiB mem:16GiB"),
    replace(MACHINES["narrowed"], gpus=build([1], gpus_on=[None]).gpus, live=False),
)


# Files that were not damaged


WORDS = (
    *("auto", "numa:0", "each numa", "gpu:0,1", "package:1/core:0-3", "pu:0-7", "machine", "x"),
    *("torch", "vllm-cpu", "vllm-xpu", "ipex-llm", "command", "ipex", "bfloat16", "int8", "fp8"),
    *("bind", "interleave", "local", "spread", "pack", "isolate", "any", "efficiency", "fill"),
    *("never", "always", "stored", "dummy", "tcmalloc", "intel", "/m", "owner/name", "~x/y", ""),
    *(
        "bundled:smollm2-135m",
        "bundled:?",
        "a",
        "b",
        "{port}",
        "--port",
        "0-3,8",
        "\u00e9",
        "a\\n",
    ),
)
NUMBERS = ("0", "1", "2", "4", "16", "4096", "4097", "65535", "65536", "-1", "1e3", "0.5", "nan")
SHARED_KEYS = tuple(field.encode_name for field in msgspec.structs.fields(InstanceWish))
TABLE_KEYS = {
    "": ("schema", "name"),
    "[defaults]": tuple(key for key in SHARED_KEYS if key not in ("name", "port", "count")),
    "[[instance]]": SHARED_KEYS,
    "[ports]": ("first", "last"),
    "[load]": ("concurrency", "input_len", "output_len"),
    "[expect]": ("packages", "numa_nodes", "gpus", "memory", "cores", "cards"),
}


def scalar(rng: random.Random) -> str:
    kind = rng.randrange(8)
    if kind < 4:
        return f'"{rng.choice(WORDS)}"'
    return rng.choice(NUMBERS) if kind < 7 else rng.choice(["true", "false", "1979-05-27"])


def value(rng: random.Random, depth: int = 0) -> str:
    kind = rng.randrange(10)
    if kind < 7 or depth > 2:
        return scalar(rng)
    if kind < 9:
        return f"[{', '.join(value(rng, depth + 1) for _ in range(rng.randrange(3)))}]"
    inside = (f"{rng.choice('ABC')}{at} = {value(rng, depth + 1)}" for at in range(2))
    return f"{{ {', '.join(inside)} }}"


MEMORY = ("bind", "preferred", "interleave", "weighted-interleave", "local")
LIKELY: dict[str, Callable[[random.Random], str]] = {
    "schema": lambda rng: "1",
    "name": lambda rng: f'"{rng.choice("abcdef")}{rng.randrange(9)}"',
    "slot": lambda rng: f'"{rng.choice(WORDS[:7])}"',
    "engine": lambda rng: f'"{rng.choice(WORDS[8:14])}"',
    "env": lambda rng: '{ A = "1", OMP_NUM_THREADS = "4" }',
    "args": lambda rng: "{ max-model-len = 8, x = 0.5, y = true }",
    "command": lambda rng: '["server", "--port", "{port}"]',
    "profile": lambda rng: '["KMP_BLOCKTIME=1"]',
    "dtype": lambda rng: '"bfloat16"',
    "memory": lambda rng: f'"{rng.choice(MEMORY)}"',
    "memory_limit": lambda rng: f'"{rng.randrange(40)}{rng.choice(["MiB", "GiB", "GB", ""])}"',
}
FLAGS = ("smt", "core_dumps", "allow_degraded", "trust_remote_code")
COUNTED = (
    *("port", "count", "cores", "gpus", "reserve_cores", "ready_timeout_s", "stop_grace_s"),
    *("cpu_limit", "oom_score_adj"),
)


def likely(rng: random.Random, key: str) -> str:
    """Mostly what the key may have."""
    if rng.random() < 0.15:
        return value(rng)
    if key in LIKELY:
        return LIKELY[key](rng)
    if key in FLAGS:
        return rng.choice(["true", "false"])
    return rng.choice(NUMBERS[1:6]) if key in COUNTED else scalar(rng)


def made_up(rng: random.Random) -> str:
    """A file by the grammar, of keys that there are."""
    lines = ["schema = 1"]
    tables = ["[[instance]]"] * rng.randint(1, 3)
    tables += [
        table for table in ("[defaults]", "[ports]", "[load]", "[expect]") if rng.random() < 0.2
    ]
    rng.shuffle(tables)
    for number, table in enumerate(tables):
        lines.append(table)
        if table == "[[instance]]":
            lines.append(f'name = "i{number}"')
        keys = [key for key in TABLE_KEYS[table] if key != "name"]
        said = rng.sample(keys, min(len(keys), rng.randrange(4)))
        lines += [f"{key} = {likely(rng, key)}" for key in said]
    return "\n".join(lines) + "\n"


# Damages


Damage = Callable[[random.Random, bytes], bytes]
PIECES = (
    *(b'"', b"'", b"[", b"]", b"[[", b"]]", b"{", b"}", b"=", b".", b",", b"\n", b"#", b'"""'),
    *(b"\\", b"\0", b"\r", b"\x85", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\xf0\x9f\x92\xa9"),
    *(
        b"1e400",
        b"-0",
        b"nan",
        b"inf",
        b"0x",
        b"99999999999999999999",
        b"\xe2\x80\xae",
        b"\x1b[2J",
    ),
    *(
        b"[instance]\n",
        b"[[instance]]\n",
        b"[defaults]\n",
        b"schema",
        b"a.b.c = 1\n",
        b"env = 3\n",
    ),
)


def at(rng: random.Random, data: bytes) -> int:
    return rng.randint(0, len(data))


def flipped(rng: random.Random, data: bytes) -> bytes:
    place = at(rng, data[:-1])
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def cut_out(rng: random.Random, data: bytes) -> bytes:
    place = at(rng, data)
    return data[:place] + data[place + rng.randint(1, 12) :]


def put_in(rng: random.Random, data: bytes) -> bytes:
    place = at(rng, data)
    return data[:place] + rng.choice(PIECES) + data[place:]


def truncated(rng: random.Random, data: bytes) -> bytes:
    return data[: at(rng, data)]


def line_twice(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    line = rng.choice(lines)
    lines.insert(rng.randrange(len(lines)), line)
    return b"\n".join(lines)


def lines_swapped(rng: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def line_ends(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"\n", rng.choice([b"\r\n", b"\r", b"\n\n", b"\x0b", b""]))


def with_mark(rng: random.Random, data: bytes) -> bytes:
    return rng.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\xef\xbb\xbf"]) + data


def deep(rng: random.Random, data: bytes) -> bytes:
    many = rng.choice([50, 500, 5_000])
    nest = rng.choice([b"[" * many + b"]" * many, b"{a=" * many + b"1" + b"}" * many])
    return re.sub(rb"= [^\n]*", b"= " + nest.replace(b"\\", b""), data, count=1)


def huge_number(rng: random.Random, data: bytes) -> bytes:
    numbers = [b"9" * 5_000, b"0x" + b"f" * 9_000, b"9" * 1_000, b"9" * 30, b"1e308"]
    number = rng.choice([*numbers, b"4096", b"1048577", b"-9"])
    return _one_of(rng, rb"\d+", number, data)


def other_value(rng: random.Random, data: bytes) -> bytes:
    new = rng.choice([value(rng), value(rng), "0x" + "f" * 9_000])
    return _one_of(rng, rb"= [^\n]*", b"= " + new.encode(), data)


def other_key(rng: random.Random, data: bytes) -> bytes:
    words = [key for keys in TABLE_KEYS.values() for key in keys] + ["Slot", "", '""', "a b", "é"]
    return _one_of(rng, rb"(?m)^\w+ =", rng.choice(words).encode() + b" =", data)


def other_word(rng: random.Random, data: bytes) -> bytes:
    return _one_of(rng, rb'"[^"\n]*"', f'"{rng.choice(WORDS)}"'.encode(), data)


def text_of_nines(rng: random.Random, data: bytes) -> bytes:
    return _one_of(rng, rb'"[^"\n]*"', b'"' + b"x\xc3\xa9" * rng.choice([60, 30_000]) + b'"', data)


def _one_of(rng: random.Random, pattern: bytes, new: bytes, data: bytes) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + new + data[one.end() :]


DAMAGES: tuple[Damage, ...] = (
    *(flipped, cut_out, put_in, put_in, truncated, line_twice, lines_swapped, line_ends),
    *(with_mark, deep, huge_number, huge_number, other_value, other_value, other_key, other_word),
    text_of_nines,
)


def files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Files with what was done to each."""
    rng = random.Random(seed)
    shipped = [path.read_text() for path in SHIPPED]
    for _ in range(count):
        data = (rng.choice(shipped) if rng.random() < 0.5 else made_up(rng)).encode()
        done = []
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            damage = rng.choice(DAMAGES)
            done.append(damage.__name__)
            data = damage(rng, data)
        yield ", ".join(done), data


def check(path: Path) -> bool:
    """Whether the file is taken; it can be placed then, and else tells its mistake."""
    try:
        layout = checked(read_layout(str(path)))
    except LayoutError as error:
        _tells_enough(error, path)
        return False
    for machine in PLACES:
        plan = place(machine, layout, traits=TRAITS)
        assert plan.placements or plan.refusals
        words = [words for one in plan.refusals for words in (one.why, one.do)]
        words += [words for one in plan.placements for words in (*one.reasons, *one.warnings)]
        assert all(0 < len(one) < LONGEST_WORDS and one.isprintable() for one in words)
        around = Surroundings({}, path.parent)
        # Such as an [expect] that contradicts itself: an error with words too.
        with suppress(ControlError):
            plan_layout(machine, layout, around, base=str(path.parent))
    return True


def _tells_enough(error: LayoutError, path: Path) -> None:
    assert str(path) in error.what
    assert error.exit_code == 2
    assert error.why
    assert error.do
    assert len(str(error)) < LONGEST_WORDS
    assert str(error).isprintable(), "what a terminal would obey"
    if re.search(r"cannot be read$|is not a layout file$", error.what):
        return
    line = re.search(r", line (\d+) (has a mistake|is not TOML)$", error.what)
    assert line, error.what
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode()
    assert 1 <= int(line[1]) <= text.count("\n") + 1


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_damaged_file_is_refused_in_words_or_placed(group: int, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    taken = 0
    for number, (done, data) in enumerate(files(group, CASES // GROUPS)):
        path.write_bytes(data)
        start = time.process_time()
        try:
            taken += check(path)
        except Exception as error:
            kept = tmp_path / f"failed-{group}-{number}.toml"
            kept.write_bytes(data)
            raise AssertionError(f"{kept} ({done}): {error!r}") from error
        assert time.process_time() - start < LONGEST_S, f"{done}: {data[:2000]!r}"
    # Neither all nor none: the damages are neither harmless nor hopeless.
    assert CASES // GROUPS * 0.1 < taken < CASES // GROUPS * 0.9


# Every key with every wrong type


UNNAMED = "a number that Python does not write out"
"""Of which only the line is told."""
WRONG = {
    UNNAMED: "0x" + "f" * 9_000,
    "text": '"?"',
    "a whole number": "7777777",
    "a negative number": "-7",
    "a number": "0.25",
    "not a number": "nan",
    "true or false": "true",
    "a date": "1979-05-27",
    "a time": "07:32:00",
    "a list": "[[1]]",
    "a table": "{ q = { r = 1 } }",
}
RIGHT = {
    "text": ("model", "host", "python"),
    "true or false": ("smt", "allow_degraded", "trust_remote_code", "core_dumps"),
    "a number": ("ready_timeout_s", "stop_grace_s", "answer_timeout_s", "cpu_limit"),
    "a whole number": ("packages", "numa_nodes"),
    "a negative number": ("packages", "numa_nodes", "oom_score_adj"),
}
"""Keys for which that is right, as far as the layout alone can tell."""


@pytest.mark.parametrize("table", TABLE_KEYS)
def test_a_wrong_type_names_its_line_and_key(table: str) -> None:
    for key in TABLE_KEYS[table]:
        for kind, wrong in WRONG.items():
            if key in RIGHT.get(kind, ()) or (not table and key == "name" and kind == "text"):
                continue
            lines = ["schema = 1", "[[instance]]", 'name = "a"', "", f"{key} = {wrong}"]
            if table == "":
                lines = ["", "schema = 1", *["[[instance]]", 'name = "a"']]
                lines[0 if key == "name" else 1] = f"{key} = {wrong}"
            elif table != "[[instance]]":
                lines[3] = table
            elif key == "name":
                lines[2] = ""
            text = "\n".join(lines)
            with pytest.raises(LayoutError) as caught:
                parse_layout(text, name="x.toml", engines={"torch": ["none"]})
            line = lines.index(f"{key} = {wrong}") + 1
            assert caught.value.what == f"x.toml, line {line} has a mistake", text
            # Of a table inside, the key that is wrong.
            assert kind == UNNAMED or re.search(rf"\b({key}|q)\b", str(caught.value)), text
            assert len(str(caught.value)) < LONGEST_WORDS


# There and back


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
flag_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True).filter(
    lambda name: not is_secret(name)
)
variable_names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: not is_secret(name)
)
numbers = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
commands = (
    st.lists(texts, min_size=1, max_size=4)
    .map(tuple)
    .filter(lambda words: shown_argv(Command(words)) == words)
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True)


@st.composite
def instances(draw: st.DrawFn, name: str) -> Instance:
    slot = draw(slots)
    auto = slot == "auto"
    engine = draw(st.sampled_from(["torch", "ipex-llm", "command"]) | texts)
    cores = draw(st.none() | st.integers(1, 4096)) if auto or slot.startswith("gpu") else None
    gpus = draw(st.none() | st.integers(1, 4096)) if auto else None
    count: int | str | None = None
    if auto or slot.startswith("each"):
        count = draw(st.none() | st.integers(1, 4096))
    if auto and (cores or gpus):
        count = draw(st.sampled_from([count, "fill"]))
    return Instance(
        name=name,
        engine=engine,
        model=draw(texts),
        slot=slot,
        port=draw(st.none() | st.integers(1, 65535)),
        count=count,
        dtype=draw(st.sampled_from(["auto", "float16", "bfloat16"])),
        weight_only=draw(texts),
        weights=draw(st.sampled_from(["stored", "dummy"])),
        memory=draw(st.sampled_from(MEMORY)),
        memory_limit=draw(st.sampled_from([None, "24GiB", "1.5 TiB", "512MiB"])),
        cpu_limit=draw(st.none() | st.floats(0.01, 4096)),
        oom_score_adj=draw(st.none() | st.integers(-1000, 1000)),
        core_dumps=draw(st.booleans()),
        reserve_cores=draw(st.none() | st.integers(0, 4096)),
        cores=cores,
        gpus=gpus,
        strategy=draw(st.sampled_from(["spread", "pack", "isolate"])),
        core_kind=draw(st.sampled_from([None, "performance", "efficiency", "any"])),
        smt=draw(st.booleans()),
        allocator=draw(st.sampled_from([None, "system", "auto", "jemalloc"])),
        openmp=draw(st.sampled_from([None, "default", "intel"])),
        profile=tuple(draw(st.lists(texts, max_size=2))),
        env=draw(st.dictionaries(variable_names, texts, max_size=3)),
        args=draw(st.dictionaries(flag_names, texts | numbers, max_size=3)),
        restart=draw(st.sampled_from(["never", "on-failure", "always"])),
        host=draw(texts.filter(bool)),
        python=draw(st.none() | texts),
        command=draw(commands) if engine == "command" else (),
        allow_degraded=draw(st.booleans()),
        trust_remote_code=draw(st.booleans()),
        ready_timeout_s=draw(st.none() | st.floats(0, 1e6, exclude_min=True)),
        stop_grace_s=draw(st.none() | st.floats(0, 1e6)),
        answer_timeout_s=draw(st.floats(0, 1e6)),
    )


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    called = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    first = draw(st.integers(1, 65535))
    machine = draw(st.none() | st.sampled_from(sorted(MACHINES)).map(MACHINES.__getitem__))
    return Layout(
        name=draw(texts.filter(bool)),
        instances=tuple(draw(instances(name)) for name in called),
        ports=draw(st.just(Ports()) | st.builds(Ports, first=st.just(first), last=st.just(65535))),
        expect=None if machine is None else fingerprint(machine),
    )


@given(layouts())
def test_a_layout_is_read_back_as_it_was_written(layout: Layout) -> None:
    text = written(layout)
    assert parse_layout(text, name="x.toml") == layout
    assert layout.load == Load(), "which no face writes"
    assert edited(text, layout.instances) == text


@given(layouts(), layouts())
def test_an_edited_file_says_what_was_wished(before: Layout, after: Layout) -> None:
    text = edited(written(before), after.instances)
    read = parse_layout(text, name="x.toml")
    assert {one.name: one for one in read.instances} == {one.name: one for one in after.instances}
    assert (read.name, read.ports, read.expect) == (before.name, before.ports, before.expect)
