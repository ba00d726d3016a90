"""Changing settings from the chat: what is meant, what holds then, what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from localr1.set_command import change, find_key, listing, rule_changes, warning
from localr1.settings import SettingError, rows
from localr1.settings_file import parse, read
from localr1.settings_layers import Layers

FILE = parse('[sampling]\ntemperature = 1.0\n[keys]\nquit = "ctrl+q"\n', Path("config.toml"))


@pytest.mark.parametrize(
    ("typed", "key"),
    [("temperature", "sampling.temperature"), ("Sampling.Temperature", "sampling.temperature"), ("--think-budget", "thinking.budget"), ("keys.quit", "keys.quit"), ("when_full", "chat.when_full"), ("thinking", "thinking.mode")],
)  # fmt: skip
def test_a_setting_may_be_named_in_short(typed: str, key: str) -> None:
    assert find_key(typed) == key


def test_what_names_no_setting_is_told() -> None:
    with pytest.raises(SettingError, match=r"no setting temprature; did you mean sampling\.temperature\?"):
        find_key("temprature")
    with pytest.raises(SettingError, match=r"^look may be look\.theme or look\.latex"):
        find_key("look")


def test_a_change_holds_for_the_session_and_a_saved_one_for_the_model(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    layers = Layers(read(config), {"sampling.top_p": 0.9})
    layers.open("r1:7b")
    key, line = change(layers, "temperature 0.65")
    assert (key, layers.settings.sampling.temperature, layers.origins[key]) == ("sampling.temperature", 0.65, "/set")
    assert line == "sampling.temperature is now 0.65, for this session; add save to keep it" and not config.exists()

    key, line = change(layers, "temperature 0.7 save")
    assert (layers.settings.sampling.temperature, layers.origins[key]) == (0.7, "[models.r1:7b] config.toml:2")
    assert line == "sampling.temperature is now 0.7, kept in config.toml for r1:7b"
    assert change(layers, "latex off save")[1] == "look.latex is now false, kept in config.toml"
    assert config.read_text() == '[models."r1:7b"]\nsampling.temperature = 0.7\n\n[look]\nlatex = false\n'

    change(layers, "top_p 0.8 save")  # a flag says otherwise, but what was said last holds
    assert (layers.settings.sampling.top_p, read(config).models["r1:7b"].values["sampling.top_p"]) == (0.8, 0.8)
    layers.open("another")
    assert layers.settings.sampling.temperature == 0.6 and not layers.settings.look.latex


def test_texts_are_kept_emptied_and_forgotten(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    layers = Layers(read(config))
    assert change(layers, "system Be brief")[1].endswith("for this session; add --save to keep it")
    assert change(layers, "system Save --save")[1].startswith("chat.system is now Save, kept") and layers.settings.chat.system == "Save"
    assert change(layers, 'system ""')[1].startswith('chat.system is now ""') and layers.settings.chat.system == ""
    change(layers, "system none --save")
    assert "system" not in config.read_text() and layers.settings.chat.system == ""
    with pytest.raises(SettingError, match="add --save to keep it"):
        change(layers, "model.name r1:7b")


def test_what_the_file_sets_for_all_models_is_not_said_to_be_unset_for_one(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[thinking]\nbudget = 500\n")
    layers = Layers(read(config))
    layers.open("r1:7b")
    line = change(layers, "budget none save")[1]
    assert line.endswith("for this session; config.toml:2 sets it for all models") and layers.settings.thinking.budget is None


def test_a_change_outside_of_deepseeks_range_is_made_and_warned_of() -> None:
    layers = Layers()
    _, line = change(layers, "temperature 1.2", "DeepSeek R1 Distill Qwen 7B")
    assert layers.settings.sampling.temperature == 1.2 and "0.5 to 0.7" in line
    assert "is now 1.2" in change(layers, "temperature 1.2", "Qwen3 8B Hammer1")[1]


def test_what_holds_is_told_and_what_cannot_be_is_refused() -> None:
    layers = Layers(FILE)
    assert change(layers, "temperature") == ("", "sampling.temperature is 1 (config.toml:2)")
    assert change(layers, "seed") == ("", "sampling.seed is none (another one each time) (default)")
    with pytest.raises(SettingError, match="70"):
        change(layers, "temperature 70")
    change(layers, "system Be brief, and save")  # the last word of a text is its own
    assert layers.settings.chat.system == "Be brief, and save" and layers.origins["chat.system"] == "/set"


def test_changes_of_the_rules_of_a_turn() -> None:
    layers = Layers(flags={"sampling.seed": 3})
    for typed, changed in (("thinking off", {"thinking": "off"}), ("think-budget 9", {"think_budget": 9}), ("latex off", {})):
        assert rule_changes(layers, change(layers, typed)[0]) == changed
    sampling = rule_changes(layers, change(layers, "min_p 0.1")[0])["sampling"]
    assert (sampling.min_p, sampling.seed) == (0.1, 3)


def test_keys_are_changed_too() -> None:
    layers = Layers(FILE)
    change(layers, "keys.fold f2,ctrl+y")
    change(layers, "keys.quit none")
    assert layers.settings.keys == {"fold": "f2,ctrl+y"}
    with pytest.raises(SettingError):
        find_key("nothing.quit")
    assert len(layers.table()) == len(rows()) + 1


def test_the_listing_has_every_setting_and_where_it_comes_from() -> None:
    lines = listing(Layers(FILE, {"sampling.seed": 3})).split("\n")
    assert all(any(line.startswith(f"{key} ") for line in lines) for key in (*rows(), "keys.quit"))
    assert [line.split(None, 1)[1] for line in lines if line.startswith("sampling.temp")] == ["1  (config.toml:2)"]
    assert any(line.startswith("sampling.seed ") and line.endswith("3  (flag)") for line in lines)


def test_only_models_of_the_r1_family_are_warned_of() -> None:
    hot = Layers(flags={"sampling.temperature": 1.0})
    assert all(warning(hot, name) for name in ("r1-tiny", "r1:7b", "DeepSeek R1 Distill Qwen 7B", "DeepSeek-R1-0528-Qwen3-8B"))
    assert not any(warning(hot, name) for name in ("qwen3-8b", "", "hammer1", "r10"))
    assert not warning(Layers(), "r1-tiny")


def test_what_is_looked_at_when_the_chat_begins_can_only_be_kept(tmp_path: Path) -> None:
    layers = Layers(read(tmp_path / "config.toml"))
    with pytest.raises(SettingError, match="add save to keep it"):
        change(layers, "history off")
    assert layers.settings.chat.history and "for the next chat" in change(layers, "mouse off save")[1]


def test_keys_of_another_action_are_not_kept(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    with pytest.raises(SettingError, match=r"Ctrl\+T is the key of trace"):
        change(Layers(read(config)), "keys.fold ctrl+t save")
    assert not config.exists()
