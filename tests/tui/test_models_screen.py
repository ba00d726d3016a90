"""The models to choose from: what is here, what could be pulled, what each is; going on with another; nothing is asked of the network."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tui.driving import THINK, ask, chat, press, screen, send, shows, until

from localr1 import fitting, library, paths, picking
from localr1.fitting import Bandwidth
from localr1.models import ModelSpec, Wanted
from localr1.opening import Opener
from localr1.tui.app import ChatApp
from localr1.tui.models_screen import ModelsScreen
from scripted import ScriptedBackend


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 GB with empty folders, where every look-up of a name fails the test."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    for module in (fitting, picking):
        monkeypatch.setattr(module, "machine", lambda: (8 * 10**9, 6 * 10**9))
    monkeypatch.setattr(fitting, "bandwidth", lambda: Bandwidth(45e9, "said"))
    for module in (fitting, library):
        monkeypatch.setattr(module, "is_apple_silicon", lambda: False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    return tmp_path


def test_what_is_here_says_what_it_is_a_distill_of_and_whether_it_fits(home: Path, student_gguf: Path) -> None:
    own = home / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf"
    own.write_bytes(student_gguf.read_bytes())
    library.used(own)
    library.used(home / "gone.gguf")
    bundled, named = sorted(picking.here(), key=lambda pick: pick.name != "r1-tiny")
    assert bundled.path == paths.assets() / "r1-tiny" and "thinks in R1's manner" in bundled.what and bundled.fits
    assert named.name == str(own) and named.form == "GGUF Q4_K_M"
    assert named.what.startswith(
        "A distill: Qwen2.5-Math-7B, trained on what DeepSeek-R1 wrote. It is not DeepSeek-R1 itself. 3.3 million parameters"
    )
    own.write_bytes(b"GGUF and no more")
    (damaged,) = (pick for pick in picking.here() if pick.path == own)
    assert not damaged.fits and str(own) in damaged.what


def test_what_could_be_pulled_and_why_it_does_not_fit(home: Path) -> None:
    picks = {pick.name: pick for pick in picking.to_pull(45e9)}
    assert picks["r1:7b"].fits and "Fits: it takes about 5.68 GB of 8.00 GB memory." in picks["r1:7b"].memory
    assert "7.6 billion parameters. About 9 tokens/s here." in picks["r1:7b"].what
    assert not picks["r1:32b"].fits and picks["r1:32b"].memory.startswith("Does not fit: it takes about 20.90 GB")
    assert "DeepSeek-R1-0528 wrote" in picks["r1-0528:8b"].what and picks["r1:7b"].path is None


async def test_the_screen_shows_them_and_leaves_all_as_it_is(home: Path):
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        await press(pilot, "f2")
        await shows(app, "The bundled model, a toy")
        for line in screen(app).splitlines():
            assert len(line) <= 80
        assert "r1:70b" in screen(app) and "Can be pulled" in screen(app)
        await press(pilot, "down")
        await shows(app, "A distill: Qwen2.5-Math-1.5B")
        await shows(app, "36 tokens/s")
        await press(pilot, "x", "escape")  # no key of the chat's
        await until(lambda: not isinstance(app.screen, ModelsScreen))
        assert app.input.text == ""
        await ask(app, pilot)


async def test_choosing_one_goes_on_with_it(home: Path):
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/model")
        await shows(app, "The bundled model, a toy")
        await press(pilot, "enter")
        await until(lambda: app.engine.session is not None and app.engine.session.backend.name == "gguf", limit_s=60)
        assert backend.closed and app.layers.model == "r1-tiny"
        await press(pilot, "f2")
        await shows(app, "● r1-tiny")


async def test_one_that_does_not_fit_is_not_pulled(home: Path):
    app, _ = chat()
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/model r1:70b")
        await shows(app, "Does not fit")
        await press(pilot, "enter")
        await shows(app, "localr1 pull r1:70b --force downloads it all the same")
        assert isinstance(app.screen, ModelsScreen)


async def test_a_name_that_means_nothing_is_a_line_and_the_model_stays(home: Path):
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/model no[b]thing")
        await shows(app, "no model called 'no[b]thing'")
        await ask(app, pilot)
        assert not backend.closed


async def test_each_model_brings_its_own_settings_and_a_failed_one_takes_them_away(home: Path):
    from localr1.settings_file import read
    from localr1.settings_layers import Layers

    file = home / "config.toml"
    file.write_text("[models.r1-tiny.sampling]\ntemperature = 0.1\n[models.broken.sampling]\ntemperature = 0.2\n")

    class Working(Opener):
        def __call__(self, say: object) -> ScriptedBackend:
            return ScriptedBackend([*THINK, "ok"])

    layers = Layers(read(file))
    (home / "broken.gguf").write_bytes(b"GGUF and no more")
    app = ChatApp(Working(ModelSpec("mine", "gguf", home / "mine.gguf"), Wanted()), layers=layers)
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, f"/model {home}/broken.gguf")
        await shows(app, "The model could not be loaded")
        await until(lambda: app.engine.session)
        assert app.layers.model == "mine" and app.engine.rules.sampling.temperature == 0.6
        await send(app, pilot, "/model r1-tiny")
        await until(lambda: app.engine.session is not None and app.engine.session.backend.name == "gguf", limit_s=60)
        assert app.engine.rules.sampling.temperature == 0.1
