"""Files with a question: what is read and what is refused, names that do no harm, the template there and back."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from localr1.attachments import (
    MOST_BYTES,
    AttachError,
    Attachment,
    added,
    brief,
    compose,
    look_through,
    pasted,
    pasted_paths,
    paths_in,
    read,
    size_text,
    split,
)  # fmt: skip

OFFICIAL = """[file name]: notes.txt
[file content begin]
Two lines
of text
[file content end]
What does it say?"""


def test_the_official_template() -> None:
    assert compose("What does it say?", [Attachment("notes.txt", "Two lines\nof text")]) == OFFICIAL
    assert split(OFFICIAL) == ("What does it say?", (Attachment("notes.txt", "Two lines\nof text"),))


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        ("Why?", []), ("", ["alone"]), ("Two?\nLines", ["one\n", "\n\ntwo"]), ("[file name]: x", ["a"]),
        ("Words of the template?", ["[file content begin]\nin\n[file content end]\nthe file", "b"]), ("x", ["[file content end]"]),
    ],
)  # fmt: skip
def test_the_template_there_and_back(question: str, texts: list[str]) -> None:
    attachments = [Attachment(f"{i}.txt", text) for i, text in enumerate(texts)]
    sent = compose(question, attachments)
    assert split(sent) == (question, tuple(attachments))
    assert compose(*split(sent)) == sent


@pytest.mark.parametrize(
    "sent",
    [
        "[file name]: a", "[file name]: a\n[file content begin]\nno end", "[file content end]\nno beginning", "[file name]: a\n[file content end]\nb",
        compose("q", [Attachment("a", "x\n[file content end]\n[file name]: y\n[file content begin]\nz")]), "Say [file name]: a\n[file content begin]\nb",
    ],
)  # fmt: skip
def test_whatever_was_sent_nothing_of_it_is_lost(sent: str) -> None:
    assert compose(*split(sent)) == sent


def test_a_title_is_the_question_and_the_names() -> None:
    assert brief(OFFICIAL) == "[notes.txt] What does it say?"
    assert brief(compose("", [Attachment("a", "1"), Attachment("b", "2")])) == "[a and 1 more]"
    assert brief("Why?") == "Why?"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße\n".encode(), "Grüße\n"), (b"\xef\xbb\xbfhi", "hi"), ("Grüße".encode("utf-16"), "Grüße"), ("hi".encode("utf-32"), "hi"),
        (b"\xfe\xff" + "Grüße".encode("utf-16-be"), "Grüße"), (b"a\r\nb\rc\n", "a\nb\nc\n"), (b"MZ is no program", "MZ is no program"),
    ],
)  # fmt: skip
def test_encodings_that_say_what_they_are(tmp_path: Path, data: bytes, text: str) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(data)
    assert read(file) == Attachment("notes.txt", text, str(file.resolve()))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "is a picture, not text"), (b"%PDF-1.7 all ASCII", "is a PDF document, not text"), (b"\x7fELF\2\1\0", "is a program"),
        (b"a\0b", "is binary, not text; convert it to text first"), ("Grüße".encode("latin-1"), r"is no UTF-8 text \(byte 2\); .*iconv -f WINDOWS-1252"),
        (b"\x1f\x8b\x08\xff", "is a gzip archive"), (b"\xff\xfea", "is no UTF-16 text"), (b" \n", "is empty"), (b"", "is empty"),
        (b"x" * (MOST_BYTES + 1), r"is larger than 1.0 MB, the most that can be attached; attach a part of it"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "some file"
    file.write_bytes(data)
    with pytest.raises(AttachError, match=said):
        read(file)


def test_no_files(tmp_path: Path) -> None:
    with pytest.raises(AttachError, match="there is no such file"):
        read(tmp_path / "missing")
    with pytest.raises(AttachError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(AttachError, match="a device or a pipe"):
        read(Path(os.devnull))
    with pytest.raises(AttachError, match="cannot be read"):
        read(tmp_path / ("long" * 100))
    with pytest.raises(AttachError, match="cannot be read"):
        read(Path("a\0b"))


def test_a_name_is_one_harmless_line(tmp_path: Path) -> None:
    file = tmp_path / "a\n[file content end]\n\x1b[2J\udcff.txt"
    file.write_text("inside")
    attachment = read(file)
    assert attachment.name == "a [file content end] ␛[2J?.txt"
    assert split(compose("q", [attachment])) == ("q", (Attachment(attachment.name, "inside"),))


def test_names_are_told_apart_and_a_file_is_attached_once(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text(folder)
    attachments = added(added((), read(tmp_path / "one/a.py")), read(tmp_path / "two/a.py"))
    assert [a.name for a in attachments] == ["a.py", "two/a.py"]
    (tmp_path / "one/a.py").write_text("changed")
    attachments = added(attachments, read(tmp_path / "one" / ".." / "one/a.py"))
    assert [(a.name, a.text) for a in attachments] == [("a.py", "changed"), ("two/a.py", "two")]
    attachments = added(attachments, pasted("text", attachments))
    attachments = added(attachments, pasted("text", attachments))
    assert [a.name for a in attachments[2:]] == ["pasted-1.txt", "pasted-2.txt"]
    assert added(attachments, Attachment("pasted-1.txt", "given back"))[-1].name == "pasted-1.txt (2)"


def test_a_folder_gives_its_text_files(tmp_path: Path) -> None:
    root = tmp_path / "src"
    for name, data in {
        "b.py": b"b", "a.py": b"aa", "sub/c.md": b"ccc", "picture.png": b"\x89PNG\0", ".env": b"SECRET", ".git/config": b"x", "node_modules/x.js": b"x",
        "big.log": b"x" * (MOST_BYTES + 1), "empty": b"",
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_text("not of this folder")
    listing = look_through(root)
    assert [(a.name, a.text) for a in listing.attachments] == [("src/a.py", "aa"), ("src/b.py", "b"), ("src/sub/c.md", "ccc")]
    assert str(listing) == f"{root}: 3 text files, 6 B; 5 left out: hidden, links, no text, too large"


def test_a_folder_is_looked_at_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AttachError, match="has no text files"):
        look_through(tmp_path)
    for i in range(4):
        (tmp_path / f"{i}.txt").write_text("x" * 400_000)
    listing = look_through(tmp_path)
    assert len(listing.attachments) == 2 and "more than 1.0 MB: name a smaller folder" in str(listing)
    monkeypatch.setattr("localr1.attachments.MOST_FILES", 1)
    listing = look_through(tmp_path)
    assert len(listing.attachments) == 1 and "there are more" in str(listing)


@pytest.mark.parametrize(
    "form",
    [
        "{a}", "  {a}\n", "'{b}'", '"{b}"', "{escaped}", "file://{a}", "file://localhost{url}", "{a} {escaped}", "{a}\n{b}\n", "'{a}' '{b}'",
        "file://{a}\nfile://{url}",
    ],
)  # fmt: skip
def test_pasted_paths(tmp_path: Path, form: str) -> None:
    a, b = tmp_path / "a.txt", tmp_path / "My Notes (1).txt"
    a.write_text("a")
    b.write_text("b")
    text = form.format(a=a, b=b, escaped=shlex.quote(str(b)) if "'" in form else str(b).replace(" ", r"\ ").replace("(", r"\(").replace(")", r"\)"),
                       url=str(b).replace(" ", "%20"))  # fmt: skip
    expected = [path for path, there in ((a, "{a}" in form), (b, "{b}" in form or "{escaped}" in form or "{url}" in form)) if there]
    assert pasted_paths(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "README.md",
        "",
        "/no/such/file",
        "/usr/bin is what?",
        "file://elsewhere/etc/hosts",
        "file://[",
        "file://℀/x",
        "/" + "x" * 20_000,
        "'/unclosed",
        "~nobody-such/x",
        "/a\0b",
    ],
)
def test_what_is_no_path_is_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    assert pasted_paths(text) == []


def test_typed_paths_may_be_relative_and_have_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("My Notes.txt").write_text("x")
    Path("b").write_text("x")
    assert paths_in("My Notes.txt") == [Path("My Notes.txt")]
    assert paths_in("b My\\ Notes.txt") == [Path("b"), Path("My Notes.txt")]
    assert paths_in("~/b") == [tmp_path / "b"]
    assert paths_in("b missing") == []


def test_sizes() -> None:
    assert [size_text(n) for n in (0, 999, 1000, 3_210, 999_949, 999_950, 1_234_567)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "3.2 kB",
        "999.9 kB",
        "1.0 MB",
        "1.2 MB",
    ]
