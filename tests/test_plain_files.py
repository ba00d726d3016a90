"""Files with a question in the plain chat."""

from pathlib import Path

import pytest
from test_plain import THINK, talk

from scripted import ScriptedBackend


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("Two lines\nof text\n")
    Path("src").mkdir()
    Path("src/a.py").write_text("a = 1\n")


def test_files_go_before_the_question(monkeypatch, capsys):
    backend = ScriptedBackend([*THINK, "600"], [*THINK, "601"])
    talk(
        monkeypatch,
        f"/file\n/file notes.txt\n/file missing\n/file {'x' * 300}\n/file src\nn\n/file src\ny\nWhat?\nAnd?\n",
        lambda say: backend,
    )
    said = capsys.readouterr().out
    assert "Nothing is attached.\n" in said and "Not attached: missing: there is no such file\n" in said
    assert "cannot be read: File name too long" in said
    assert said.count("Attached: notes.txt, 18 B, 82 tokens\n") == 5
    assert said.count("src: 1 text file, 6 B. Attach them? (y/n) ") == 2 and said.count("Attached: src/a.py") == 1
    sent = backend.decode(backend.seen[0])
    assert "[file name]: src/a.py\n[file content begin]\na = 1\n\n[file content end]\nWhat?<" in sent
    assert backend.decode(backend.seen[1]).count("[file name]") == 2


def test_files_stay_when_the_question_could_not_be_asked(monkeypatch, capsys):
    backend = ScriptedBackend(["</think>", "4"], context=90)
    talk(monkeypatch, "/file notes.txt\nWhat?\n/file off\nWhat?\n", lambda say: backend)
    said = capsys.readouterr().out
    assert said.count("Attached: notes.txt") == 2 and "Answer:\n4" in said
    assert len(backend.seen) == 1 and "[file name]" not in backend.decode(backend.seen[0])
