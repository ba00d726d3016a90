"""`localr1 trace`: what it prints, in a pipe and on a terminal, of a history filled by hand, and what it says when it cannot."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import localr1
from backends.base import ModelFileError, Sampling, Token
from localr1 import cli
from localr1.history import history_file
from localr1.models import Wanted
from localr1.store import Store, TraceSummary
from localr1.trace.export import FORMS
from localr1.trace.record import Ended, Made, Trace, from_json
from localr1.trace.totals import Totals
from localr1.turn import Written

MADE = Made("r1-tiny", "gguf", "Qwen2.5", "Q8_0", Sampling(seed=7))
THOUGHT = ["I count", " r.\n\n", "1 s, 2 t, 3 r.", "\n\n", "Wait", ", that is not right", ".\n\n", "So the answer is 3."]


def run(*arguments: str) -> int:
    return cli.main(arguments)


@pytest.fixture(autouse=True)
def own_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return history_file()


def reply(
    question: str = "How many r's?", thought: list[str] = THOUGHT, answer: str = "There are **3**.", ended: Ended | None = None
) -> Trace:
    tokens = []
    for part, texts in (("thought", thought), ("answer", [answer])):
        for text in texts:
            token = Token(sum(map(ord, text)), text, -0.25, ((7, " or", -1.5),))
            own = {part: text}
            tokens.append(Written(token, part, own.get("thought", ""), own.get("answer", ""), False, 0.5 * (len(tokens) + 1)))
    ended = ended or Ended("stop", "model", 12, 0, len(tokens), 0.1, 3.0)
    return Trace(question, "".join(thought), answer, MADE, ended, "2026-01-02T03:04:05+00:00", True, tuple(tokens))


@pytest.fixture
def filled(own_history: Path) -> Path:
    """Traces 1 to 4."""
    looped = Ended("stop", "loop", 12, 0, 9, 0.1, 3.0)
    traces = [
        reply(),
        reply(
            "Say \x1b[31mred\x1b[0m\nand more " + "x" * 200,
            ["Wait, esc \x1b[2J.\n\n", "Alternatively, \u202eno."],
            "\x1b]0;t\x07ok",
            looped,
        ),
        replace(reply("What is 2 + 2?", ["2 + 2 ", "= 4."], "4"), made=replace(MADE, model="other")),
        reply("Go on", ["I want to", " think"], "", Ended("length", "unclosed", 12, 0, 2, 0.1, 1.0)),
    ]
    with Store(own_history) as store:
        for trace in traces:
            store.save(store.add_turn(store.new(), None, trace.question, trace.made), trace)
    return own_history


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Of a command that does what it should, and says nothing else."""
    assert run("trace", *arguments) == 0
    found = capsys.readouterr()
    assert found.err == ""
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", found.out)
    return found.out


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Of one that cannot."""
    assert run("trace", *arguments) == 1
    found = capsys.readouterr()
    assert found.out == "" and found.err.startswith("localr1: ") and found.err.count("\n") == 1
    return found.err


# --------------------------------------------------------------------------------------------------- list and search


@pytest.mark.usefixtures("filled")
def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "list").splitlines()
    assert re.split(r"  +", lines[0]) == ["id", "when", "model", "thought", "seconds", "ended", "question"]
    assert [line.split()[0] for line in lines[1:]] == ["4", "3", "2", "1"]
    assert "limit, unclosed" in lines[1] and "other" in lines[2] and "done, loop" in lines[3]
    assert re.fullmatch(r" *1  2026-01-0\d \d\d:\d\d  r1-tiny +8 +4\.5  done +How many r's\?", lines[4])
    assert "␛[31mred" in lines[3] and len(lines[3]) < 200
    assert [line.split()[0] for line in printed(capsys, "list", "--limit", "2").splitlines()] == ["id", "4", "3"]


@pytest.mark.usefixtures("filled")
def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "list", "--json"))
    assert [trace["id"] for trace in found] == [4, 3, 2, 1]
    assert (found[3]["thought_tokens"], found[3]["answer_tokens"], found[3]["reason"], found[3]["thought_end"]) == (8, 1, "stop", "model")


@pytest.mark.usefixtures("filled")
def test_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "search", "not", "righ") == "1  thought   …r.  1 s, 2 t, 3 r.  Wait, that is not right.  So the answer is 3.\n"
    assert [line.split()[0] for line in printed(capsys, "search", "wait").splitlines()] == ["2", "1"]
    assert len(printed(capsys, "search", "wait", "--limit", "1").splitlines()) == 1
    found = json.loads(printed(capsys, "search", "--json", "right"))
    assert (found[0]["turn"], found[0]["part"]) == (1, "thought")
    a, b = found[0]["at"][0]
    assert found[0]["snippet"][a:b] == "right"
    assert "nothing was found with all of these words: nowhere" in said(capsys, "search", "nowhere")
    assert json.loads(printed(capsys, "search", "nowhere", "--json")) == []


# ---------------------------------------------------------------------------------------------------- show and stats


@pytest.mark.usefixtures("filled")
def test_show_prints_statistics_then_steps_then_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "show", "1")
    parts = text.split("\n\n")
    assert parts[0].splitlines()[0] == "trace 1: How many r's?" and "r1-tiny (distilled into Qwen2.5, Q8_0, gguf)" in parts[0]
    assert re.search(r"^thought +8 tokens, 4.0 s$", parts[1], re.M) and re.search(r"^steps +4: 1 backtrack", parts[1], re.M)
    assert parts[2].splitlines()[0].startswith('1 " restate, 2 tokens') and parts[2].splitlines()[1] == "    I count r."
    assert parts[4].splitlines() == ["3 < backtrack, 3 tokens, 1.5 s", "    Wait, that is not right."]
    assert parts[-1] == "answer\n    There are **3**.\n"


@pytest.mark.usefixtures("filled")
def test_show_the_last_one(capsys: pytest.CaptureFixture[str]) -> None:
    last = printed(capsys, "show")
    assert last.startswith("trace 4: Go on") and last == printed(capsys, "show", "last", "--plain") and "mid-thought" in last
    assert "␛[2J" in printed(capsys, "show", "2")


@pytest.mark.usefixtures("filled")
def test_show_as_json_is_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    found = from_json(json.loads(printed(capsys, "show", "1", "--json")))
    assert found.thought == "".join(THOUGHT) and len(found.tokens) == 9


@pytest.mark.usefixtures("filled")
def test_show_opens_the_browser_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from localr1.tui import trace_app

    opened = []
    monkeypatch.setattr(trace_app.TraceApp, "run", lambda self, mouse: opened.append(mouse))
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(getattr(sys, name), "isatty", lambda: True)
    assert run("trace", "show", "1") == 0 and opened == [True]


@pytest.mark.usefixtures("filled")
def test_statistics_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "backtrack" in printed(capsys, "stats", "1") and "restate" not in printed(capsys, "stats", "1")
    found = json.loads(printed(capsys, "stats", "1", "--json"))
    assert (found["id"], found["thought_tokens"], found["backtracks"], found["tokens_per_s"]) == (1, 8, 1, 3.0)


@pytest.mark.usefixtures("filled")
def test_statistics_of_all_by_model(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.split() for line in printed(capsys, "stats").splitlines()]
    assert [line[0] for line in lines] == ["model", "r1-tiny", "other", "all"]
    assert lines[3][1:3] == ["4", "14"] and lines[1][-4:] == ["0%", "33%", "0%", "33%"]
    found = json.loads(printed(capsys, "stats", "--json"))
    assert list(found["models"]) == ["r1-tiny", "other"]
    assert found["all"]["ended"] == {"loop": 0.25, "model": 0.5, "unclosed": 0.25}
    assert found["all"]["thought_tokens"] == 14 and found["all"]["mean_thought_tokens"] == 3.5
    assert found["models"]["r1-tiny"]["backtracks"] >= 2
    assert found["models"]["other"]["backtracks_per_1000_tokens"] == 0
    assert math.isclose(found["all"]["seconds"], 4.5 + 1.5 + 1.5 + 1.5)


def test_of_a_text_without_tokens_nothing_is_counted() -> None:
    known, text = (TraceSummary(1, 1, "?", "m", "", tokens, 0, 1.0, "stop", "model") for tokens in (3, 0))
    counted = Totals()
    for trace in (known, text, text):
        counted.add(trace, "".join(THOUGHT))
    assert (counted.traces, counted.mean_thought_tokens, counted.backtracks) == (3, 3.0, 1)


# ------------------------------------------------------------------------------------------------------------ export


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("form", FORMS)
def test_export(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "export", "1", "--to", form)
    file = tmp_path / f"trace.{form}"
    assert printed(capsys, "export", "1", "-o", str(file)) == ""  # the form by the file's name
    assert file.read_text() == text and text.endswith("\n")
    assert "exists already; choose another name or pass --force" in said(capsys, "export", "2", "--to", form, "-o", str(file))
    assert file.read_text() == text
    assert printed(capsys, "export", "2", "--to", form, "-o", str(file), "--force") == "" and file.read_text() != text
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


@pytest.mark.usefixtures("filled")
def test_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be written" in said(capsys, "export", "1", "-o", str(tmp_path / "no" / "x.md"))
    assert "exists already" in said(capsys, "export", "1", "-o", str(tmp_path), "--force")


@pytest.fixture
def files(filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Traces 1 and 2 as they are handed on, json and jsonl; here is no history."""
    found = [str(tmp_path / name) for name in ("one.json", "two.jsonl")]
    for number, file in enumerate(found, 1):
        printed(capsys, "export", str(number), "-o", file)
    filled.unlink()
    return found


def test_a_file_that_was_exported_is_shown_as_what_was_kept(
    files: list[str], own_history: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = files
    assert printed(capsys, "show", one).startswith("one.json: How many r's?") and "␛[2J" in printed(capsys, "show", two)
    assert printed(capsys, "show", one, "--json") == printed(capsys, "export", one, "--to", "json") == Path(one).read_text()
    assert printed(capsys, "export", two, "--to", "jsonl") == Path(two).read_text()
    assert "<svg" in printed(capsys, "export", two, "--to", "svg")
    assert json.loads(printed(capsys, "stats", one, "--json"))["id"] is None and printed(capsys, "stats", two).startswith("two.jsonl: ")
    assert "note: the questions are different" in printed(capsys, "compare", "--traces", one, two)
    assert not own_history.exists()
    Path(one).write_text(Path(one).read_text().replace('"at_s": 0.5', '"at_s": Infinity'))
    assert "a token came after inf seconds" in said(capsys, "show", one)


def test_a_file_beside_what_is_kept(files: list[str], own_history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no traces are kept yet" in said(capsys, "compare", "--traces", "1", files[0])
    with Store(own_history) as store:
        store.save(store.add_turn(store.new(), None, "How many r's?", MADE), reply())
    assert "no difference" in printed(capsys, "compare", "--traces", "last", files[0])


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.json", b"nothing of that kind", "is no JSON"),
        ("x.json", b"\xff\xfe", "is no JSON"),
        ("x.json", b"[" * 100_000, "is no JSON"),
        ("x.json", b"[]", "this is no trace of localr1"),
        ("x.json", b'{"version": 99}', "update localr1"),
        ("x.jsonl", b"{}\n{}", "line 1 is out of place"),
        ("x.jsonl", b"", "this is no trace of localr1"),
        ("x.json", b"\xef\xbb\xbf[]", "this is no trace of localr1"),
    ],
)
def test_a_file_that_is_no_trace(name: str, content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / name
    assert "No such file" in said(capsys, "show", str(file))
    file.write_bytes(content)
    line = said(capsys, "show", str(file))
    assert told in line and str(file) in line


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("arguments", [["list"], ["show"], ["search", "x"], ["stats"], ["export", "1"], ["compare", "--traces", "1", "2"]])
def test_an_empty_history(arguments: list[str], own_history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no traces are kept yet" in said(capsys, *arguments)
    assert not own_history.exists()
    if arguments[0] not in ("search", "export", "compare"):
        Store(own_history).close()
        assert "no traces are kept yet" in said(capsys, *arguments)


def test_an_empty_history_is_a_list_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(printed(capsys, "list", "--json")) == []


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show"], ["search", "x"], ["stats"], ["export", "1"]])
def test_a_history_that_is_none(arguments: list[str], own_history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own_history.parent.mkdir(parents=True)
    own_history.write_text("nothing of that kind" * 100)
    assert "is no SQLite database; move it away" in said(capsys, *arguments)


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("arguments", [["show", "99"], ["stats", "99"], ["export", "99"], ["compare", "--traces", "1", "99"]])
def test_no_such_trace(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no trace 99; localr1 trace list shows" in said(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        [], ["show", "first"], ["show", "0"], ["list", "--limit", "0"], ["search"], ["export", "1", "--to", "pdf"], ["compare"], ["compare", "hi"],
        ["compare", "hi", "--traces", "1", "2"], ["compare", "--traces", "1"], ["compare", "--traces", "1", "2", "--against", "x"],
        ["compare", " ", "--against", "@reference"], ["compare", "hi", "--against", "@nothing"], ["compare", "hi", "--against", ""],
    ],
)  # fmt: skip
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("trace", *arguments)
    assert ended.value.code == 2 and "usage: " in capsys.readouterr().err


def test_what_cannot_be_compared(own_history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model called 'nosuch'" in said(capsys, "compare", "hi", "--against", "nosuch", "--seed", "1")
    assert not own_history.exists()


# ----------------------------------------------------------------------------------------------------------- compare


@pytest.mark.usefixtures("filled")
def test_two_traces_that_were_kept(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "compare", "--traces", "1", "3")
    assert "note: the questions are different" in text and "A  r1-tiny (" in text and "B  other (" in text and "trace 3" in text
    lines = text.splitlines()
    assert "first difference: token 1, in the thought" in lines
    assert any(re.fullmatch(r'"I count" +\* 77\.8% +-', line) for line in lines), text
    assert any(re.fullmatch(r'" or" +22\.2% +22\.2%', line) for line in lines)
    assert "answers: different" in lines and any(re.fullmatch(r"thought tokens +8 +2", line) for line in lines)
    assert "no difference" in printed(capsys, "compare", "--traces", "1", "1")
    assert "␛[2J" in printed(capsys, "compare", "--traces", "2", "last")


@pytest.mark.usefixtures("filled")
def test_two_traces_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "compare", "--traces", "1", "3", "--json"))
    assert (found["a"]["id"], found["b"]["id"], found["same_answer"], found["divergence"]["at"]) == (1, 3, False, 0)


def test_one_question_to_two_backends(capsys: pytest.CaptureFixture[str], own_history: Path) -> None:
    question = "How many r's are in strawberry?"
    asked = ["trace", "compare", question, "--against", "@reference", "--temperature", "0", "--json"]
    assert run(*asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert [found[side]["made"]["backend"] for side in "ab"] == ["gguf", "reference"]
    assert found["same_answer"] and found["same_vocabulary"] and "strawberry" in found["a"]["answer"]
    assert found["a"]["stats"]["tokens_per_s"] > 0 and found["a"]["made"]["sampling"]["seed"] == 0
    with Store(own_history) as store:
        (conversation,) = store.conversations()
        turns = store.conversation(conversation.id).turns
        assert [turn.id for turn in turns] == [found["a"]["id"], found["b"]["id"]] and [turn.parent for turn in turns] == [None, None]
    assert run(*asked, "--no-history") == 0
    assert json.loads(capsys.readouterr().out)["a"]["id"] is None


def test_both_are_opened_as_the_flags_say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[Wanted] = []

    def load(spec: object, wanted: Wanted) -> None:
        opened.append(wanted)
        raise ModelFileError("enough")

    monkeypatch.setattr("localr1.ask.load", load)
    assert "enough" in said(
        capsys, "compare", "hi", "--against", "@reference", "--kv", "q8_0", "--force", "--context", "999", "--seed", "1"
    )
    assert opened == [Wanted("auto", 999, "q8_0", force=True)]


def test_the_same_model_and_seed_is_the_same_reply(capsys: pytest.CaptureFixture[str], own_history: Path) -> None:
    flags = ["--against", "r1-tiny@gguf", "--no-history", "--max-tokens", "60"]
    assert run("trace", "compare", "What is 917 * 38?", "-m", "r1-tiny@gguf", *flags) == 0
    found = capsys.readouterr()
    assert "no difference: the replies are the same" in found.out and "seed 0" in found.out
    assert "localr1: both are asked with seed 0, as none was given" in found.err and not own_history.exists()


def test_a_history_that_cannot_be_written_spoils_nothing(capsys: pytest.CaptureFixture[str], own_history: Path) -> None:
    own_history.mkdir(parents=True)
    assert run("trace", "compare", "hi", "--against", "@gguf", "--temperature", "0", "--max-tokens", "9") == 0
    found = capsys.readouterr()
    assert "no difference" in found.out and "localr1: this is not kept: the history" in found.err


# ---------------------------------------------------------------------------------------------------------- terminal

_ON_TERMINAL = """
import sys
sys.path[:0] = [{tests!r}]
import test_tracing
sys.stdin.isatty = lambda: False
sys.exit(test_tracing.run("trace", *sys.argv[1:]))
"""


def on_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """What a terminal of that width gets."""
    import pty

    main, side = pty.openpty()
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_TERMINAL.format(tests=here), *arguments], stdin=subprocess.DEVNULL, stdout=side, stderr=side,
        env=os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color", "PYTHONPATH": str(Path(localr1.__file__).parents[1])} | environment,
    )  # fmt: skip
    os.close(side)
    out = b""
    while True:
        try:
            out += os.read(main, 65536)
        except OSError:
            break
    os.close(main)
    assert process.wait(60) == 0, out.decode()
    return out.decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("filled")
def test_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    plain = re.compile("\x1b\\[[0-9;]*m")
    assert "\x1b[1mright\x1b[0m" in on_terminal(80, "search", "right")
    listed = plain.sub("", on_terminal(80, "list"))
    assert max(map(len, listed.splitlines())) == 80 and len(listed.splitlines()) == 5
    wide = plain.sub("", on_terminal(140, "compare", "--traces", "1", "3"))
    assert re.search(r"^thought of A {40,}thought of B", wide, re.M) and re.search(r'^A1 " restate +B1 ', wide, re.M)
    assert "answer of A (different)" in wide
    narrow = plain.sub("", on_terminal(80, "compare", "--traces", "1", "3"))
    assert "thought of A" not in narrow and "answers: different" in narrow
    assert "backtracks/1k" in plain.sub("", on_terminal(80, "stats"))
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", on_terminal(80, "list", NO_COLOR="1"))


def test_nothing_heavy_is_imported_for_the_parser() -> None:
    code = "import sys, localr1.trace_commands; print([m for m in ('rich', 'textual', 'numpy', 'jinja2', 'sqlite3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(localr1.__file__).parents[1])
    assert done.stdout == "[]\n"
