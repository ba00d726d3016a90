"""Settings from the screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tui.driving import THINK, ask, screen, send, settle, shows, until

from localr1.models import ModelSpec, Wanted
from localr1.opening import Opener
from localr1.settings_file import read
from localr1.settings_layers import Layers
from localr1.tui.app import ChatApp
from localr1.turn import Rules
from scripted import ScriptedBackend


async def test_set_changes_the_next_turn_and_tells_what_holds(tmp_path: Path) -> None:
    backend = ScriptedBackend([*THINK, "600"], [*THINK, "601"])
    config = tmp_path / "config.toml"
    app = ChatApp(lambda say: backend, layers=Layers(read(config), {"sampling.seed": 5}))
    async with app.run_test(size=(100, 40)) as pilot:
        await until(lambda: app.engine.session)
        assert app.engine.rules.sampling.seed == 5
        await send(app, pilot, "/set temperature 0.65")
        await shows(app, "sampling.temperature is now 0.65, for this session")
        await ask(app, pilot)
        assert (backend.samplings[-1].temperature, backend.samplings[-1].seed) == (0.65, 5)
        await send(app, pilot, "/set Temperature 70")
        await shows(app, "a number from 0 to 10 is needed")
        assert app.settings.sampling.temperature == 0.65
        await send(app, pilot, "/budget 3")
        await send(app, pilot, "/set budget")
        await shows(app, "thinking.budget is 3 (/set)")
        await send(app, pilot, "/set attach-pasted 0")
        assert app.input.attach_pasted == 0
        await send(app, pilot, "/set latex off save")
        assert config.read_text() == "[look]\nlatex = false\n" and not app.settings.look.latex
        await send(app, pilot, "/set")
        await settle(pilot)
        assert "sampling.temperature" in screen(app) and "(config.toml:2)" in screen(app)


async def test_rules_that_were_given_stay_but_for_what_is_set() -> None:
    app = ChatApp(lambda say: ScriptedBackend([]), Rules(think_budget=9))
    async with app.run_test() as pilot:
        await send(app, pilot, "/set thinking force")
        assert (app.engine.rules.think_budget, app.engine.rules.thinking) == (9, "force")


@pytest.mark.parametrize(("name", "is_warned"), [("DeepSeek R1 Distill Qwen 7B", True), ("scripted", False)])
async def test_a_temperature_outside_of_deepseeks_range_is_warned_of_at_the_start(name: str, is_warned: bool) -> None:
    backend = ScriptedBackend()
    backend.info = replace(backend.info, name=name)
    app = ChatApp(lambda say: backend, layers=Layers(flags={"sampling.temperature": 1.2}))
    async with app.run_test(size=(120, 24)) as pilot:
        await until(lambda: app.engine.session)
        if is_warned:
            await shows(app, "DeepSeek advises")
        else:
            await settle(pilot)
            assert "advises" not in screen(app)


async def test_keys_that_are_taken_are_refused_and_the_old_ones_stay() -> None:
    app = ChatApp(lambda say: ScriptedBackend())
    async with app.run_test(size=(100, 24)) as pilot:
        await send(app, pilot, "/set keys.fold ctrl+t")
        await shows(app, "Ctrl+T is the key of trace")
        assert app.keymap.first("fold") == "Ctrl+O"


async def test_a_larger_context_is_had_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def open_model(spec: ModelSpec, wanted: Wanted, *tell: object) -> ScriptedBackend:
        asked.append(wanted)
        return ScriptedBackend([*THINK, "600"], context=wanted.context or 1024)

    monkeypatch.setattr("localr1.models.open_model", open_model)
    app = ChatApp(
        Opener(ModelSpec("r1:7b", "gguf", Path("r1.gguf")), Wanted(kv="q8_0", force=True)), layers=Layers(flags={"model.kv": "q8_0"})
    )
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.engine.session)
        await ask(app, pilot)
        await send(app, pilot, "/set context 2048")
        await until(lambda: len(asked) == 2 and app.engine.session)
        assert asked[1] == Wanted(context=2048, kv="q8_0", force=True)
        await ask(app, pilot, "And now?")
        await shows(app, "/ 2,048")
        assert app.engine.session is not None and len(app.engine.session.history) == 4
