"""The table of settings: what a value may be, and what the settings are made of."""

from __future__ import annotations

import pytest

from backends.base import Sampling
from localr1.settings import SamplingSettings, SettingError, Settings, advice, key_problem, rows
from localr1.turn import Rules


def test_the_defaults_are_the_rules_of_a_turn_without_settings() -> None:
    assert Settings().rules() == Rules() == Rules(Sampling(0.6, 0.95))


def test_every_row_has_a_value_in_the_settings_and_its_own_default() -> None:
    assert {key: Settings()[key] for key in rows()} == {key: row.default for key, row in rows().items()}
    assert all((row.help and row.default is not None) or row.unset for row in rows().values())
    flags = [row.flag for row in rows().values() if row.flag]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sampling.temperature", 70, "sampling.temperature is 70, a number from 0 to 10 is needed"),
        ("sampling.temperature", "hot", 'sampling.temperature is "hot", a number from 0 to 10 is needed'),
        ("sampling.temperature", True, "sampling.temperature is true, a number from 0 to 10 is needed"),
        ("sampling.temperature", float("nan"), "sampling.temperature is nan, a number from 0 to 10 is needed"),
        ("model.context", 0, "model.context is 0, a whole number of 1 or more is needed"),
        ("model.context", 4096.0, "model.context is 4096.0, a whole number of 1 or more is needed"),
        ("thinking.mode", "on", 'thinking.mode is "on", one of auto, off, force is needed'),
        ("look.latex", 1, "look.latex is 1, true or false is needed"),
        ("chat.system", 3, "chat.system is 3, a text is needed"),
        ("savings.price", [1], "savings.price is [1], a number from 0 to 1000000 is needed"),
        ("sampling.temperature", 10**400, f"sampling.temperature is 1{'0' * 59}..., a number from 0 to 10 is needed"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_is_needed(key: str, value: object, said: str) -> None:
    with pytest.raises(SettingError) as problem:
        rows()[key].check(value)
    assert str(problem.value) == said


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("sampling.temperature", "0.7", 0.7),
        ("sampling.temperature", "1", 1.0),
        ("sampling.seed", "none", None),
        ("sampling.seed", "7", 7),
        ("look.latex", "off", False),
        ("chat.history", "Yes", True),
        ("thinking.mode", "OFF", "off"),
        ("chat.system", "Be brief.  ", "Be brief.  "),
    ],
)
def test_typed_values_are_read(key: str, text: str, value: object) -> None:
    read = rows()[key].parse(text)
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("key", "text"), [("sampling.temperature", "none"), ("sampling.seed", "1.5"), ("look.latex", "maybe"), ("model.context", "")]
)
def test_typed_values_that_cannot_be_are_refused(key: str, text: str) -> None:
    with pytest.raises(SettingError, match=f'{key} is "{text}", .* is needed'):
        rows()[key].parse(text)


def test_settings_are_changed_by_key() -> None:
    settings = Settings().changed({"sampling.temperature": 0.5, "sampling.seed": 3, "keys.quit": "ctrl+q"})
    assert (settings.sampling.temperature, settings.sampling.seed, settings.sampling.top_p) == (0.5, 3, 0.95)
    assert settings["keys.quit"] == "ctrl+q" and settings["keys.fold"] is None
    assert settings.changed({"keys.quit": None}).keys == {} and settings.changed({"keys.fold": "f2"}).keys == {
        "quit": "ctrl+q",
        "fold": "f2",
    }


def test_advice_for_r1_models_outside_of_the_range() -> None:
    assert advice(SamplingSettings()) == advice(SamplingSettings(temperature=0.5)) == advice(SamplingSettings(temperature=0.7)) == ""
    assert advice(SamplingSettings(temperature=0.0)) == "temperature 0: DeepSeek advises 0.5 to 0.7 for R1 models"
    assert advice(SamplingSettings(temperature=0.8)).startswith("temperature 0.8: ")


def test_keys_of_an_action_may_not_be_empty() -> None:
    assert "keys.quit is empty" in key_problem("quit", " ") and key_problem("quit", "ctrl+q") == ""
