"""Saving into a layout file: only what differs changes, and the file then says what runs."""

import tomllib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import LayoutError
from engine.core.layout import Instance, Layout, Ports, parse_layout
from engine.core.layout_edit import edited, expect_text, withheld, written
from engine.core.layout_text.toml_document import toml_key, toml_value
from engine.core.likeness.fingerprint import Expect, fingerprint
from engine.core.placing.copies import copies_of
from engine.core.topology import Machine
from tests.machines_by_hand import MACHINES, server, with_gpus

HERE = server()

PLAIN = """\
# Two replicas for the office.
schema = 1
name = 'Two replicas'

[defaults]            # for both
engine = "torch"      # ours
model = "bundled:smollm2-135m"
env = { OMP = "1" }

# The first one.
[[instance]]
name = "a"            # alpha
slot = 'numa:0'       # the left socket
port = 8001

# --- from here on: the second one

# It is slower.
[[instance]]
name = "b"
slot = "numa:1"
# reserve_cores = 2 was too many
reserve_cores = 1

[ports]               # the firewall lets these through
first = 8001
last = 8010
"""


def wishes_of(text: str, machine: Machine | None = HERE) -> list[Instance]:
    layout = parse_layout(text, name="l")
    if machine is None:
        return list(layout.instances)
    return [copy for wish in layout.instances for copy in copies_of(wish, machine)]


def to(wish: Instance, **values: Any) -> Instance:
    return msgspec.structs.replace(wish, **values)


def save(text: str, wishes: Sequence[Instance], expect: Expect | None = None) -> str:
    new = edited(text, wishes, expect, machine=HERE)
    assert {one.name: one for one in wishes_of(new)} == {one.name: one for one in wishes}
    return new


def differing(old: str, new: str) -> tuple[list[str], list[str]]:
    """Lines that went and lines that came."""
    was, now = old.splitlines(), new.splitlines()
    return [one for one in was if one not in now], [one for one in now if one not in was]


def comments(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.lstrip().startswith("#")]


# One key


def test_nothing_differs_nothing_changes() -> None:
    assert save(PLAIN, wishes_of(PLAIN)) == PLAIN


def test_a_slot_changes_where_it_stands_in_its_quotes() -> None:
    a, b = wishes_of(PLAIN)
    new = save(PLAIN, [to(a, slot="numa:1/core:0-3"), b])
    assert differing(PLAIN, new) == (
        ["slot = 'numa:0'       # the left socket"],
        ["slot = 'numa:1/core:0-3'       # the left socket"],
    )


def test_a_new_key_goes_below_the_last_one_and_a_dropped_one_leaves() -> None:
    a, b = wishes_of(PLAIN)
    new = save(PLAIN, [to(a, port=None, cores=None), to(b, port=8002, strategy="pack")])
    assert differing(PLAIN, new) == (["port = 8001"], ["port = 8002", 'strategy = "pack"'])
    assert new.index("reserve_cores = 1\nport = 8002") > 0


def test_what_the_defaults_say_is_not_repeated() -> None:
    a, b = wishes_of(PLAIN)
    new = save(PLAIN, [a, b, to(a, name="c", slot="numa:2", port=8003)])
    assert '\n[[instance]]\nname = "c"\nslot = "numa:2"\nport = 8003\n\n[ports]' in new
    assert differing(PLAIN, new)[0] == []


def test_own_entries_of_env_are_laid_over_the_defaults() -> None:
    a, b = wishes_of(PLAIN)
    new = save(PLAIN, [to(a, env={"OMP": "1", "MKL": "4"}), b])
    assert differing(PLAIN, new) == ([], ['env = { MKL = "4" }'])
    again = save(new, [to(a, env={"OMP": "2", "MKL": "5"}), b])
    assert 'env = { MKL = "5", OMP = "2" }' in again or 'OMP = "2", MKL = "5"' in again


def test_a_default_that_a_moved_instance_cannot_undo_goes_to_those_who_want_it() -> None:
    text = """\
schema = 1
[defaults]
slot = "auto"
cores = 1   # each gets one
[[instance]]
name = "a"
[[instance]]
name = "b"
[[instance]]
name = "c"
count = 2
"""
    a, *rest = wishes_of(text)
    new = save(text, [to(a, slot="core:3", cores=None), *rest])
    assert differing(text, new) == (
        ["cores = 1   # each gets one"],
        ['slot = "core:3"', "cores = 1", "cores = 1"],
    )


def test_an_entry_of_env_that_the_defaults_give_and_one_wish_has_not() -> None:
    a, b = wishes_of(PLAIN)
    new = save(PLAIN, [to(a, env={}), b])
    assert new.count('env = { OMP = "1" }') == 1
    assert new.index('env = { OMP = "1" }') > new.index('name = "b"')


def test_what_all_heirs_changed_to_stands_in_the_defaults() -> None:
    new = save(PLAIN, [to(one, model="../models/x") for one in wishes_of(PLAIN)])
    assert differing(PLAIN, new) == (
        ['model = "bundled:smollm2-135m"'],
        ['model = "../models/x"'],
    )


# Tables


def test_an_instance_goes_with_its_own_comment_only() -> None:
    a, b = wishes_of(PLAIN)
    without_a = save(PLAIN, [b])
    assert "# The first one." not in without_a
    assert "alpha" not in without_a
    assert "# --- from here on: the second one" in without_a
    assert "# It is slower." in without_a
    without_b = save(PLAIN, [a])
    assert without_b.endswith(
        "port = 8001\n\n# --- from here on: the second one\n\n"
        "[ports]               # the firewall lets these through\nfirst = 8001\nlast = 8010\n"
    )


def test_the_last_table_goes_without_leaving_blank_lines() -> None:
    text = 'schema = 1\n[[instance]]\nname = "a"\n\n# b\n[[instance]]\nname = "b"\n# its end\n\n\n'
    assert save(text, wishes_of(text)[:1]) == 'schema = 1\n[[instance]]\nname = "a"\n'


def test_comments_that_stand_apart_outlive_the_table_between_them() -> None:
    text = """\
schema = 1

# floating 1

# a
[[instance]]
name = "a"
# below a

# floating 2

# b
[[instance]]
name = "b"
# env of b
[instance.env]
X = "1"

# the end
"""
    a, b = wishes_of(text)
    without_a, without_b = save(text, [b]), save(text, [a])
    assert differing(text, without_a) == (["# a", 'name = "a"', "# below a"], [])
    assert "\n\n# floating 1\n\n# floating 2\n\n# b\n[[instance]]" in without_a
    assert without_b.endswith('name = "a"\n# below a\n\n# floating 2\n\n# the end\n')
    assert comments(save(text, [a, to(b, env={})])) == comments(text)


def test_all_are_other_ones() -> None:
    new = save(PLAIN, [Instance(name="x", engine="torch", model="m/x", env={"OMP": "1"})])
    assert 'model = "m/x"' in new
    assert "# the firewall lets these through" in new


def test_no_instance_at_all_is_refused() -> None:
    with pytest.raises(LayoutError, match="needs an instance"):
        edited(PLAIN, [])


def test_a_file_that_is_no_layout_is_refused() -> None:
    with pytest.raises(LayoutError, match="line 1"):
        edited("[[instance", [Instance(name="a")])


EACH = """\
schema = 1

# one a node
[[instance]]
name = "n"
slot = "each numa"
port = 8100   # and up

[[instance]]
name = "s"
count = 2
cores = 1
"""


def test_copies_stay_one_table_while_they_are_what_it_expands_to() -> None:
    wishes = wishes_of(EACH)
    assert [one.name for one in wishes] == ["n-0", "n-1", "n-2", "n-3", "s-0", "s-1"]
    assert save(EACH, wishes) == EACH
    assert edited(EACH, wishes_of(EACH, None)) == EACH


def test_copies_that_differ_get_tables_of_their_own_in_that_place() -> None:
    wishes = wishes_of(EACH)
    wishes[1] = to(wishes[1], slot="numa:1/core:0-3")
    del wishes[2]
    new = save(EACH, wishes)
    assert new.startswith(
        'schema = 1\n\n# one a node\n[[instance]]\nname = "n-0"\nslot = "numa:0"\nport = 8100\n\n'
        '[[instance]]\nname = "n-1"\nslot = "numa:1/core:0-3"\nport = 8101\n\n'
        '[[instance]]\nname = "n-3"\n'
    )
    assert new.endswith('\n[[instance]]\nname = "s"\ncount = 2\ncores = 1\n')


# Ways to write TOML


def test_line_ends_of_windows_stay() -> None:
    text = PLAIN.replace("\n", "\r\n")
    a, b = wishes_of(text)
    assert save(text, [a, b]) == text
    new = save(
        text, [to(a, slot="numa:3", cores=None, port=None), b, to(b, name="c")], Expect(packages=2)
    )
    assert "\n" not in new.replace("\r\n", "")
    assert "slot = 'numa:3'       # the left socket\r\n" in new


def test_dotted_keys_and_tables_inside() -> None:
    text = """\
schema = 1
defaults.engine = "torch"   # dotted
defaults.env.OMP = "1"
[[instance]]
name = "a"
env.KMP = "0"   # no blocking
args.max-model-len = 2048

[[instance]]
name = "b"
[instance.env]   # a table
KMP = "1"
[instance.args]
seed = 3
"""
    a, b = wishes_of(text)
    new = save(text, [to(a, env={"OMP": "1", "KMP": "5"}), to(b, slot="numa:1", args={"seed": 4})])
    assert 'env.KMP = "5"   # no blocking' in new
    assert 'name = "b"\nslot = "numa:1"\n[instance.env]   # a table\n' in new
    assert "seed = 4" in new
    without = save(text, [to(a, args={}), to(b, env={"OMP": "1"})])
    assert differing(text, without) == (
        ["args.max-model-len = 2048", "[instance.env]   # a table", 'KMP = "1"'],
        [],
    )


@pytest.mark.parametrize(
    "text",
    [
        'schema = 1\ninstance = [{name = "a", slot = "numa:0"}, {name = "b"}]\n[ports]\n',
        'schema = 1\ninstance = [\n  # one\n  { name = "a", slot = "numa:0" }, # left\n'
        '  # two\n  { name = "b" } # right\n]\n',
        'schema = 1\ninstance = [ { name = "a", slot = "numa:0" },\n { name = "b" }, ]\n',
    ],
)
def test_inline_tables(text: str) -> None:
    a, b = wishes_of(text)
    assert save(text, [a, b]) == text
    save(text, [to(a, slot="numa:1"), to(b, slot="numa:2", env={"X": "1"})])
    save(text, [to(a, slot="auto"), b])
    save(text, [a])
    save(text, [b])
    save(text, [a, b, to(a, name="c"), to(a, name="d")])
    save(text, [to(a, name="c"), to(a, name="d")])
    assert comments(save(text, [to(a, slot="numa:1"), b])) == comments(text)


def test_inline_copies() -> None:
    text = 'schema = 1\ninstance = [\n  { name = "n", slot = "each numa" }\n]\n'
    wishes = wishes_of(text)
    assert save(text, wishes) == text
    assert save(text, wishes[1:3]) == (
        'schema = 1\ninstance = [\n  { name = "n-1", slot = "numa:1" },\n'
        '  { name = "n-2", slot = "numa:2" }\n]\n'
    )


def test_text_that_looks_like_toml_inside_strings() -> None:
    text = """\
schema = 1
[[instance]]
name = "a"
engine = "command"
command = [
  "sh", # shell
  '''
[[instance]]
# not a comment
''',
]
# a comment of b
[[instance]]
name = "b"
"""
    a, b = wishes_of(text)
    new = save(text, [to(a, slot="numa:0"), to(b, slot="numa:1")])
    assert differing(text, new) == ([], ['slot = "numa:0"', 'slot = "numa:1"'])
    assert "# a comment of b" not in save(text, [a])
    assert save(text, [b]) == 'schema = 1\n# a comment of b\n[[instance]]\nname = "b"\n'


def test_a_file_that_ends_without_a_line_end() -> None:
    text = 'schema = 1\n[[instance]]\nname = "a"'
    (a,) = wishes_of(text)
    assert save(text, [to(a, slot="numa:0")]) == text + '\nslot = "numa:0"'
    save(text, [a, to(a, name="b")])
    save(text, [a], Expect(packages=2))


def test_tables_torn_apart_are_refused_in_words() -> None:
    text = 'schema = 1\n[[instance]]\nname = "a"\n[ports]\nfirst = 8001\n[instance.env]\nX = "1"\n'
    (a,) = wishes_of(text)
    assert save(text, [a]) == text
    with pytest.raises(LayoutError, match=r"stand apart.* Put \[instance"):
        save(text, [to(a, slot="numa:1")])
    text = 'schema = 1\n[[instance]]\nname = "a"\n[ports]\n# b\n[[instance]]\nname = "b"\n'
    a, b = wishes_of(text)
    assert save(text, [a, b]) == text
    with pytest.raises(LayoutError, match="one after the other"):
        save(text, [a])


@pytest.mark.parametrize(
    "value",
    ['a"b\\c\td\ne\x7f\x01é', "it's", "", 1, -(2**63), 1.5, 1e300, True, ["a", 1], {"a b": {}}],
)
def test_values_read_back(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value
    assert tomllib.loads(f"{toml_key(str(value))} = 1") == {str(value): 1}


# [expect]


def test_expect_is_written_refreshed_and_removed() -> None:
    wishes, expect = wishes_of(PLAIN), fingerprint(with_gpus())
    new = save(PLAIN, wishes, expect)
    assert new.startswith(PLAIN)
    assert parse_layout(new, name="l").expect == expect
    assert save(new, wishes, expect) == new
    assert save(new, wishes) == new
    other = save(new, wishes, fingerprint(HERE))
    assert parse_layout(other, name="l").expect == fingerprint(HERE)
    assert other.startswith(PLAIN)
    assert save(new, wishes, Expect()) == PLAIN


def test_expect_in_the_middle_keeps_its_place_and_comment() -> None:
    text = (
        'schema = 1\n# saved at home\n[expect]  # here\npackages = 1\n\n[[instance]]\nname = "a"\n'
    )
    new = save(text, wishes_of(text), Expect(packages=2, numa_nodes=2))
    assert new == text.replace("packages = 1", "packages = 2\nnuma_nodes = 2")


@pytest.mark.parametrize(
    "text",
    [
        'schema = 1\nexpect.packages = 1\n[[instance]]\nname = "a"\n',
        'schema = 1\nexpect = { packages = 1 }\n[[instance]]\nname = "a"\n',
        'schema = 1\n[[instance]]\nname = "a"\n[[expect.memory]]\nnuma = "0"\n'
        "[expect]\npackages = 1\n",
    ],
)
def test_expect_in_other_ways(text: str) -> None:
    expect = Expect(packages=2, numa_nodes=2)
    new = save(text, wishes_of(text), expect)
    assert parse_layout(new, name="l").expect == expect
    assert parse_layout(save(text, wishes_of(text), Expect()), name="l").expect is None


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_fingerprint_reads_back_from_text(machine: Machine) -> None:
    expect = fingerprint(machine)
    assert msgspec.convert(tomllib.loads(expect_text(expect)), Expect) == expect


# From nothing


def test_a_new_file_has_what_is_shared_in_its_defaults() -> None:
    a, b = wishes_of(PLAIN)
    text = edited("", [a, b], Expect(packages=2), name="mine")
    assert text == (
        'schema = 1\nname = "mine"\n\n[defaults]\nengine = "torch"\n'
        'model = "bundled:smollm2-135m"\nenv = { OMP = "1" }\n\n[[instance]]\nname = "a"\n'
        'slot = "numa:0"\nport = 8001\n\n[[instance]]\nname = "b"\nslot = "numa:1"\n'
        "reserve_cores = 1\n\n[expect]\npackages = 2\n"
    )
    assert wishes_of(text) == [a, b]


def test_a_single_instance_needs_no_defaults() -> None:
    layout = Layout(
        name="l", instances=(Instance(name="a", model="m"),), ports=Ports(first=9000, last=9001)
    )
    assert written(layout) == (
        'schema = 1\nname = "l"\n\n[[instance]]\nname = "a"\nengine = "torch"\nmodel = "m"\n\n'
        "[ports]\nfirst = 9000\nlast = 9001\n"
    )


# Secrets


def test_secrets_are_written_only_where_the_text_had_them() -> None:
    wish = Instance(name="a", env={"HF_TOKEN": "hf_x", "OMP": "1"})
    new = edited("", [wish])
    assert "hf_x" not in new
    assert 'OMP = "1"' in new
    assert withheld("", [wish]) == ["a: HF_TOKEN"]
    text = 'schema = 1\n[defaults]\nenv = { HF_TOKEN = "hf_x" }\n[[instance]]\nname = "a"\n'
    (known,) = wishes_of(text)
    assert edited(text, [known], machine=HERE) == text
    moved = edited(text, [to(known, slot="numa:1")], machine=HERE)
    assert moved == text + 'slot = "numa:1"\n'
    assert withheld(text, [known]) == []
    # Another value than the file's own: the file's stays.
    assert edited(text, [to(known, env={"HF_TOKEN": "hf_y"})], machine=HERE) == text


def test_a_secret_in_a_command_is_refused() -> None:
    wish = Instance(name="a", engine="command", command=("x", "--api-key", "sk-1"))
    with pytest.raises(LayoutError, match="holds a secret"):
        edited("", [wish])


# Laws

names = st.sampled_from(["a", "b", "c", "d"])
slots = st.sampled_from(
    ["auto", "numa:0", "numa:1/core:0-3", "gpu:0", "each numa", "each package"]
)


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """Some keys of a table, without those that depend on each other."""
    maker: dict[str, st.SearchStrategy[Any]] = {
        "engine": st.sampled_from(["torch", "ipex"]),
        "model": st.sampled_from(["m", "bundled:x", 'it\'s "odd"\n']),
        "memory": st.sampled_from(["bind", "local"]),
        "reserve_cores": st.integers(0, 3),
        "smt": st.booleans(),
        "core_kind": st.sampled_from(["performance", "any"]),
        "env": st.dictionaries(
            st.sampled_from(["X", "Y", "HF_TOKEN"]), st.sampled_from(["1", "'"]), max_size=2
        ),
        "args": st.dictionaries(
            st.sampled_from(["k", "a.b"]), st.sampled_from([1, "x", 1.5, True]), max_size=2
        ),
        "command": st.lists(st.sampled_from(["x", "--y"]), max_size=2),
        "ready_timeout_s": st.sampled_from([1.0, 2.5]),
    }
    keys = draw(st.sets(st.sampled_from(sorted(maker)), max_size=5))
    return {key: draw(maker[key]) for key in sorted(keys)}


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    chosen = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    made = []
    for name in chosen:
        table = {"name": name, **draw(values())}
        if draw(st.booleans()):
            table["slot"] = draw(slots)
        if draw(st.booleans()):
            table["port"] = draw(st.integers(8000, 8010))
        if table.get("slot", "auto") == "auto" and draw(st.booleans()):
            table["count"] = draw(st.integers(1, 3))
        made.append(table)
    return made


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Layout files in many styles, with a comment wherever one may stand."""
    number = 0

    def comment(line: str, indent: str = "") -> str:
        nonlocal number
        above, beside = draw(st.booleans()), draw(st.booleans())
        number += 2
        head = f"{indent}# c{number}\n" if above else ""
        return f"{head}{indent}{line}{f'  # c{number + 1}' if beside else ''}\n"

    def quoted(value: object) -> str:
        literal = isinstance(value, str) and "'" not in value and draw(st.booleans())
        return f"'{value}'" if literal else ""

    def body(table: dict[str, Any], prefix: str) -> str:
        lines, inner = "", ""
        for key, value in table.items():
            style = (
                draw(st.sampled_from(["inline", "dotted", "table"]))
                if key in ("env", "args")
                else ""
            )
            if style == "dotted" and value:
                lines += "".join(
                    comment(f"{key}.{toml_key(name)} = {toml_value(one)}")
                    for name, one in value.items()
                )
            elif style == "table":
                inner += comment(f"[{prefix}.{key}]")
                inner += "".join(
                    comment(f"{toml_key(n)} = {toml_value(one)}") for n, one in value.items()
                )
            else:
                lines += comment(f"{key} = {quoted(value) or toml_value(value)}")
        return lines + inner

    defaults = draw(values())
    made = draw(tables())
    gap = draw(st.sampled_from(["", "\n", "\n# floating\n\n"]))
    text = comment("schema = 1")
    if draw(st.booleans()):
        text += gap + comment("[defaults]") + body(defaults, "defaults")
    else:
        text += "".join(
            comment(f"defaults.{key} = {toml_value(value)}") for key, value in defaults.items()
        )
        if draw(st.booleans()):
            rows = "".join(comment(f"{toml_value(table)},", "  ") for table in made)
            return f"{text}instance = [\n{rows}]\n"
    for table in made:
        text += gap + comment("[[instance]]") + body(table, "instance")
    if draw(st.booleans()):
        text += gap + comment("[ports]") + comment("first = 8001")
    return text.replace("\n", "\r\n") if draw(st.booleans()) else text


@st.composite
def others(draw: st.DrawFn, wishes: list[Instance]) -> list[Instance]:
    """Some of the wishes, some changed, some new."""
    made: dict[str, Instance] = {}
    for wish in wishes:
        fate = draw(st.sampled_from(["keep", "keep", "move", "change", "drop"]))
        if fate == "keep":
            made[wish.name] = wish
        elif fate == "move":
            made[wish.name] = to(wish, slot=draw(st.sampled_from(["numa:2", "auto"])))
        elif fate == "change":
            made[wish.name] = new(draw, wish.name)
    for name in draw(st.lists(st.sampled_from(["x", "y"]), max_size=2, unique=True)):
        made[name] = new(draw, name)
    if not made:
        made["x"] = new(draw, "x")
    return list(made.values())


def new(draw: st.DrawFn, name: str) -> Instance:
    table = draw(values())
    table["command"] = tuple(table.get("command", ()))
    return Instance(name=name, slot=draw(st.sampled_from(["auto", "numa:1"])), **table)


@given(texts())
def test_a_file_that_says_what_runs_is_not_touched(text: str) -> None:
    try:
        wishes = wishes_of(text)
    except LayoutError:
        return
    if len({one.name for one in wishes}) == len(wishes):
        assert edited(text, wishes, machine=HERE) == text


@given(texts(), st.data())
def test_the_file_then_says_just_what_is_wished(text: str, data: st.DataObject) -> None:
    try:
        before = wishes_of(text)
    except LayoutError:
        return
    if len({one.name for one in before}) < len(before):
        return
    wishes = data.draw(others(before))
    after = edited(text, wishes, fingerprint(HERE), machine=HERE)
    found = {one.name: one for one in wishes_of(after)}
    secrets = {"HF_TOKEN"}
    for wish in wishes:
        read = found.pop(wish.name)
        assert {k: v for k, v in read.env.items() if k not in secrets} == {
            k: v for k, v in wish.env.items() if k not in secrets
        }
        assert to(read, env={}) == to(wish, env={})
    assert not found
    assert parse_layout(after, name="l").expect == fingerprint(HERE)
    assert ("\r\n" in text) == ("\r\n" in after)
    if "\r\n" in text:
        assert "\n" not in after.replace("\r\n", "")
    # Done twice, nothing more changes.
    assert edited(after, wishes_of(after), fingerprint(HERE), machine=HERE) == after


@given(texts(), st.data())
def test_comments_of_tables_that_stay_survive(text: str, data: st.DataObject) -> None:
    try:
        wishes = wishes_of(text)
    except LayoutError:
        return
    if len({one.name for one in wishes}) < len(wishes) or "count" in text or "each" in text:
        return
    moved = [to(one, slot="numa:3") if data.draw(st.booleans()) else one for one in wishes]
    after = edited(text, [*moved, Instance(name="x")], machine=HERE)
    kept = set(comments(after))
    # Above a default that `x` cannot undo, too: only the line itself goes.
    assert [one for one in comments(text) if one not in kept] == []
