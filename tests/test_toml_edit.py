"""Keys of TOML texts are found where they are, and values change without anything else changing."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localr1.toml_edit import CannotEdit, Key, dotted, edited, literal, places

ODD = r'''# [sampling] in a comment
title = "a # no comment, [no] table, no = key" # one
'quoted "key"' = 'C:\new'
"esc\u0041ped" = 1
a.b . "c.d" = [ 1, # one ]
  { x = "}" , y.z = [ "]", '}' ] }, """
] text = 3
""",
]
empty = ""
day = 1979-05-27 07:32:00   # with a blank
many = """
[sampling]
temperature = 9 \\
quotes: ""\""""
raw = """""two quotes at both ends"""""
lines = ~~~
[models]
key = 'a' # \
~~~
inline = { one = 1, two = { three = [3], "4" = 4 }, five.six = 6 }

[ sampling ] # a comment
	temperature	=	0.6	# tabs
top_p = 0.95
[models."r1:7b".sampling]
seed=1
[[list]]
x = 1
[[list]]
x = 2
'''.replace("~~~", "'" * 3)


def value_at(tree: Any, key: Key) -> Any:
    for part in key:
        tree = tree[-1][part] if isinstance(tree, list) else tree[part]
    return tree


@pytest.mark.parametrize("text", [ODD, ODD.replace("\n", "\r\n"), ODD.rstrip(), "", "\n# nothing", "a=1", "[t]", "[t] # end"])
def test_every_value_stands_where_it_is_found(text: str) -> None:
    tree, found = tomllib.loads(text), places(text)
    for key, place in found.values.items():
        assert tomllib.loads(f"v = {text[place.start : place.end]}")["v"] == value_at(tree, key), key
    if "sampling" in text:
        assert ("sampling", "temperature") in found.values and ("inline", "two", "4") in found.values
        assert found.values.keys() >= {("a", "b", "c.d"), ("escAped",), ('quoted "key"',), ("models", "r1:7b", "sampling", "seed")}
        assert ("models", "key") not in found.values


def test_lines_are_counted_from_1_and_a_table_is_where_it_is_first_named() -> None:
    found = places(ODD)
    lines = ODD.split("\n")
    assert found.line(("title",)) == 2
    assert lines[found.line(("sampling", "temperature")) - 1].startswith("\ttemperature")
    assert lines[found.line(("sampling",)) - 1].startswith("[ sampling ]")
    assert lines[found.line(("models", "r1:7b")) - 1].startswith('[models."r1:7b".sampling]')
    assert lines[found.line(("inline", "five", "six")) - 1].startswith("inline")


@pytest.mark.parametrize(
    ("text", "key", "value", "after"),
    [
        ("", "sampling.seed", 7, "[sampling]\nseed = 7\n"),
        ("a = 1", "sampling.seed", 7, "a = 1\n\n[sampling]\nseed = 7\n"),
        ("[sampling] # mine", "sampling.seed", 7, "[sampling] # mine\nseed = 7\n"),
        ("[sampling]\nseed = 3 # why\ntop_p = 1\n", "sampling.seed", 7, "[sampling]\nseed = 7 # why\ntop_p = 1\n"),
        ("[sampling]\ntop_p = 1 # x\n\n# next\n[look]\n", "sampling.seed", 7, "[sampling]\ntop_p = 1 # x\nseed = 7\n\n# next\n[look]\n"),
        ("[sampling]\n# it\n#seed = 1\n# more\n[look]\n", "sampling.seed", 7, "[sampling]\n# it\n#seed = 1\nseed = 7\n# more\n[look]\n"),
        ("sampling.top_p = 1\n", "sampling.seed", 7, "sampling.top_p = 1\nsampling.seed = 7\n"),
        ("sampling = { top_p = 1 }\n", "sampling.seed", 7, "sampling = { seed = 7, top_p = 1 }\n"),
        ("sampling = {}\n", "sampling.seed", 7, "sampling = { seed = 7}\n"),
        ("[sampling]\r\ntop_p = 1\r\n", "sampling.seed", 7, "[sampling]\r\ntop_p = 1\r\nseed = 7\r\n"),
        ("[sampling]\nx = '''\n#seed = 1\n'''\n", "sampling.seed", 7, "[sampling]\nx = '''\n#seed = 1\n'''\nseed = 7\n"),
        ("[sampling]\nseed = 3 # why\ntop_p = 1\n", "sampling.seed", None, "[sampling]\ntop_p = 1\n"),
        ("[sampling]\n", "sampling.seed", None, "[sampling]\n"),
        ("[sampling.deeper]\nx = 1\n", "sampling.seed", 7, "[sampling.deeper]\nx = 1\n\n[sampling]\nseed = 7\n"),
    ],
)  # fmt: skip
def test_a_value_is_changed_and_the_rest_stays(text: str, key: str, value: int | None, after: str) -> None:
    assert edited(text, tuple(key.split(".")), value) == after


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", '[models."r1:7b"]\nsampling.seed = 7\n'),
        ('[models."r1:7b"]\nsampling.top_p = 1\n', '[models."r1:7b"]\nsampling.top_p = 1\nsampling.seed = 7\n'),
        ('[models."r1:7b".sampling]\ntop_p = 1\n', '[models."r1:7b".sampling]\ntop_p = 1\nseed = 7\n'),
        ('[models]\n"r1:7b" = { sampling.top_p = 1 }\n', '[models]\n"r1:7b" = { sampling.seed = 7, sampling.top_p = 1 }\n'),
        ('[models.other]\nmodel.kv = "f16"\n', '[models.other]\nmodel.kv = "f16"\n\n[models."r1:7b"]\nsampling.seed = 7\n'),
    ],
)
def test_a_value_of_one_model(text: str, after: str) -> None:
    assert edited(text, ("models", "r1:7b", "sampling", "seed"), 7, 2) == after


def test_what_cannot_be_changed_is_not() -> None:
    for text in ("sampling = 3\n", "[[sampling]]\nseed = 1\n"):
        with pytest.raises(CannotEdit):
            edited(text, ("sampling", "seed"), 7)
    with pytest.raises(CannotEdit):
        edited("sampling = { seed = 1, top_p = 1 }\n", ("sampling", "seed"), None)


_VALUES = st.one_of(st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text(st.characters(exclude_categories=["Cs"])))  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["sampling", "look", "models.a b"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=4), _VALUES), max_size=6))  # fmt: skip
def test_whatever_is_written_is_read_again(entries: list[tuple[str, str, Any]]) -> None:
    text, wanted = "# top\n", dict[str, Any]()
    for table, name, value in entries:
        text = edited(text, (table, name), value)
        wanted.setdefault(table, {})[name] = value
        assert tomllib.loads(text) == wanted and text.startswith("# top\n")
        assert tomllib.loads(f"{dotted((table, name))} = {literal(value)}") == {table: {name: value}}
