"""What a slash command may become, as far as it is typed."""

from pathlib import Path

import pytest

from localr1.commands import COMMANDS
from localr1.completion import choices, unfinished


def texts(typed: str) -> list[str]:
    return [choice.text for choice in choices(typed)]


def test_names_with_what_they_take() -> None:
    assert texts("/lon") == ["/longer"] and texts("/thi") == ["/think "]
    assert texts("/clea") == ["/new"]
    assert choices("/budg")[0].shown == COMMANDS["budget"].usage and choices("/budg")[0].help == COMMANDS["budget"].help
    assert len(choices("/")) == len(COMMANDS)
    assert choices("/zzz") == choices("hello") == choices("") == choices("/usr/bin") == []


def test_words_that_a_command_takes() -> None:
    assert texts("/think ") == ["/think auto", "/think off", "/think force"]
    assert texts("/think o") == ["/think off"]
    assert texts("/think off") == texts("/think off Why?") == texts("/new ") == []
    assert texts("/copy ") == ["/copy answer", "/copy code", "/copy thought", "/copy all"] and texts("/system ") == ["/system off"]
    assert texts("/theme h") == ["/theme high-contrast"] and texts("/save ") == []
    assert texts("/budget ") == ["/budget off"]


def test_settings_and_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # without the conversions of other tests, which are models too
    assert "/set chat.editor" in texts("/set ") and texts("/set latex") == texts("/set look.la") == ["/set look.latex"]
    assert texts("/set look.latex ") == ["/set look.latex true", "/set look.latex false"]
    assert texts("/set latex f") == ["/set latex false"]
    assert texts("/set look.theme li") == ["/set look.theme light"]
    assert texts("/set nonsense ") == texts("/set keys.stop ") == texts("/set look.latex true") == []
    assert "/model r1-tiny" in texts("/model ") and texts("/model r1-ti") == ["/model r1-tiny"]


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("My Notes").mkdir()
    for name in ("notes.txt", "My Notes/a.md", ".hidden", "bad\x1bname", "bad\udcffname"):
        Path(name).write_text("x")
    assert texts("/file ") == ["/file off", "/file My Notes/", "/file notes.txt"]
    assert texts("/file n") == ["/file notes.txt"]
    assert texts("/file .h") == ["/file .hidden"]
    assert texts("/file My Notes/") == ["/file My Notes/a.md"]
    assert texts(f"/file {tmp_path}/no") == [f"/file {tmp_path}/notes.txt"]
    assert texts("/file ~/no") == ["/file ~/notes.txt"]
    assert texts("/file notes.txt") == texts("/file no/such/") == texts("/file \0/") == []


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("/he", True), ("/help", False), ("/think", False), ("/think ", False), ("/think of", True), ("/think off", False), ("/file ", False),
        ("/file off", False), ("/file missin", True), ("/file notes.txt", False), ("what?", False), ("/think off Why?", False),
    ],
)  # fmt: skip
def test_enter_completes_what_is_unfinished(typed: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("x")
    assert unfinished(typed) is expected
