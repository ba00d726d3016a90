"""Keys: one table; a person's own in their place; whatever is wrong with those, told in one line."""

import string

import pytest
from textual.keys import _character_to_key

from localr1.keys import ACTIONS, TRACE, Keymap, clash, key_problem, named, shown
from localr1.settings import SettingError
from localr1.settings_file import parse


def test_the_table_has_no_clash_and_no_unknown_key():
    assert clash({name: action.keys for name, action in ACTIONS.items()}) is None
    assert all(not key_problem(name, action.keys) for name, action in ACTIONS.items())


def test_characters_are_called_as_textual_calls_them():
    assert [named(c) for c in string.punctuation + string.ascii_letters] == [
        _character_to_key(c) for c in string.punctuation + string.ascii_letters
    ]


@pytest.mark.parametrize(
    ("written", "name", "people"),
    [
        ("Ctrl+O", "ctrl+o", "Ctrl+O"), ("esc", "escape", "Esc"), ("PgUp", "pageup", "PageUp"), ("?", "question_mark", "?"), (" ", "space", "Space"),
        ("shift+ctrl+Left", "ctrl+shift+left", "Ctrl+Shift+Left"), ("ctrl+_", "ctrl+underscore", "Ctrl+_"), ("F12", "f12", "F12"), ("G", "G", "G"),
        ("ctrl++", "ctrl+plus", "Ctrl++"), ("+", "plus", "+"), ("ctrl+i", "tab", "Tab"), ("ctrl+[", "escape", "Esc"),
    ],
)  # fmt: skip
def test_names_of_keys(written, name, people):
    assert named(written) == name and shown(name) == people


@pytest.mark.parametrize("written", ["", "ctrl", "ctrl+", "hyper+nothing", "f25", "strg+x", "x+y", "ctrl x"])
def test_what_is_no_key(written):
    assert named(written) == ""


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"fould": "f9"}, "there is no action fould for keys; did you mean fold?"),
        ({"fold": "ctrl+schrift"}, 'keys.fold: there is no key "ctrl+schrift"'),
        ({"fold": "f9, x"}, 'keys.fold: "x" is needed for typing'),
        ({"fold": "ctrl+T"}, "keys.fold: Ctrl+T is the key of trace"),
        ({"trace_shade": "pgup"}, "keys.trace_shade: PageUp is the key of page_up"),
        ({"fold": ""}, "keys.fold is empty"),
    ],
)
def test_keys_that_cannot_be(own, says):
    with pytest.raises(SettingError, match="^" + says.replace("+", r"\+").replace("(", r"\(")):
        Keymap(own)


def test_a_clash_in_the_file_has_its_line(tmp_path):
    with pytest.raises(SettingError, match=r"config.toml:3: keys.palette: F1 is the key of help"):
        parse('[keys]\nfold = "f9"\npalette = "f1"\n', tmp_path / "config.toml")
    assert parse('[keys]\nhelp = "f9"\npalette = "f1"\n', tmp_path / "config.toml").general.values["keys.palette"] == "f1"


def test_a_key_means_what_it_was_given_to():
    keymap = Keymap({"trace_search": "f3,z", "trace_next": "N", "trace_previous": "n"})
    assert keymap.meant("z", TRACE) == "trace_search" and keymap.meant("/", TRACE) == ""
    assert keymap.meant("n", TRACE) == "trace_previous" and keymap.meant("G", TRACE) == "trace_last"
    assert keymap.shown("trace_search") == "F3, z"
