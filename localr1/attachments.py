"""Files that go with a question: read with limits, named safely, put before it in DeepSeek's template, and found there again."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from localr1.text import printable

MOST_BYTES = 1_000_000  # of one file, and of all that a folder gives: more than any context of the family holds
MOST_FILES = 200  # of one folder
_MOST_ENTRIES = 5_000  # of one folder that are looked at
PASTED = "pasted"  # where a text comes from that was never a file

# Source: README.md@deepseek-ai/DeepSeek-R1, "Official Prompts"
_HEAD = "[file name]: {}\n[file content begin]\n"
_END = "\n[file content end]\n"
_FIRST_HEAD = re.compile(r"\[file name\]: (.*)\n\[file content begin\]\n")
_NEXT_HEAD = re.compile(re.escape(_END) + _FIRST_HEAD.pattern)

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_KINDS = (  # of binary files, for the message
    (b"%PDF-", "a PDF document"), (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"), (b"GIF8", "a picture"),
    (b"PK\x03\x04", "a ZIP archive or an office document"), (b"\x1f\x8b", "a gzip archive"), (b"\x7fELF", "a program"), (b"MZ", "a program"),
    (b"SQLite format 3", "a database"), (b"GGUF", "a model"),
)  # fmt: skip


class AttachError(Exception):
    """This cannot be attached; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """`name`: one harmless line, as the model and the person see it. `origin`: the file's place, or that it was pasted."""

    name: str
    text: str
    origin: str = PASTED

    @property
    def nbytes(self) -> int:
        return len(self.text.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder would give. `left_out`: how many files are hidden, links, no text or too large; `problem`: why not all of it was looked at."""

    folder: str
    attachments: tuple[Attachment, ...]
    left_out: int
    problem: str = ""

    def __str__(self) -> str:
        count = len(self.attachments)
        size = size_text(sum(a.nbytes for a in self.attachments))
        parts = [f"{count} text file{'s' if count != 1 else ''}, {size}"]
        parts += [f"{self.left_out} left out: hidden, links, no text, too large"] if self.left_out else []
        return f"{self.folder}: " + "; ".join([*parts, *filter(None, [self.problem])])


# -------------------------------------------------------------------------------------------------- reading


def read(path: Path, name: str = "", pipes: bool = False) -> Attachment:
    """The text file at `path`; with `pipes`, of a pipe too. Raises AttachError."""
    shown = _one_line(str(path))
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise AttachError(f"{shown} is a folder; name the files in it")
        if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
            raise AttachError(f"{shown} is no file, but a device or a pipe; save what it gives to a file first")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise AttachError(f"{shown}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise AttachError(f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise AttachError(f"{shown} is larger than {size_text(MOST_BYTES)}, the most that can be attached; attach a part of it")
    text = _decoded(data, shown)
    if not text.strip():
        raise AttachError(f"{shown} is empty; there is nothing to attach")
    return Attachment(_one_line(name or path.name) or "file", text, os.path.realpath(path))


def _decoded(data: bytes, shown: str) -> str:
    """UTF-8, or what a byte order mark says. Other encodings are refused: guessing one turns letters into others, and nobody is told."""
    encoding = next((name for mark, name in _BOMS if data.startswith(mark)), "")
    kind = next((kind for magic, kind in _KINDS if data.startswith(magic)), "binary")
    if data.startswith(b"%PDF-") or (b"\0" in data and not encoding):
        raise AttachError(f"{shown} is {kind}, not text; convert it to text first")
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if kind != "binary":
            raise AttachError(f"{shown} is {kind}, not text; convert it to text first") from None
        remedy = "save it again as UTF-8" if encoding else f"if it is text, convert it: iconv -f WINDOWS-1252 -t UTF-8 {shlex.quote(shown)}"
        raise AttachError(f"{shown} is no {(encoding or 'utf-8').upper()} text (byte {error.start}); {remedy}") from None
    return re.sub("\r\n?", "\n", text)


def look_through(folder: Path) -> Listing:
    """The text files of a folder and of those in it, named from it on; hidden ones, links and `node_modules` are left out.

    Raises AttachError: it cannot be read, or has no text files.
    """
    shown = _one_line(str(folder))
    try:
        root = Path(os.path.realpath(folder))
    except OSError as error:  # the working folder is gone
        raise AttachError(f"{shown} cannot be read: {error.strerror}") from None
    found: list[Attachment] = []
    left_out = size = 0
    problem = ""
    for n, path in enumerate(_files(root)):
        if n == _MOST_ENTRIES or len(found) == MOST_FILES:
            problem = "there are more: name a smaller folder for those"
            break
        try:
            if path.name.startswith(".") or path.is_symlink():
                raise AttachError("left out")
            attachment = read(path, f"{root.name}/{path.relative_to(root).as_posix()}")
        except (AttachError, OSError):
            left_out += 1
            continue
        size += attachment.nbytes
        if size > MOST_BYTES:
            problem = f"more than {size_text(MOST_BYTES)}: name a smaller folder for the rest"
            break
        found.append(attachment)
    if not found:
        raise AttachError(f"{shown} has no text files that could be attached")
    return Listing(shown, tuple(found), left_out, problem)


def _files(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        if error.filename == str(root):
            raise AttachError(f"{_one_line(str(root))} cannot be read: {error.strerror}")

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "node_modules")
        yield from (Path(folder, name) for name in sorted(files))


def paths_in(text: str) -> list[Path]:
    """The paths that `text` consists of, as people, shells and a terminal's drag and drop write them: one, or several on a line or on lines of
    their own; quoted, escaped or a file:// address. None, if any of them is not there."""
    paths: list[Path] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        there = _path(line)
        if there is not None:
            paths.append(there)
            continue
        try:
            words = [_path(word) for word in shlex.split(line)]
        except ValueError:  # a quote that is not closed
            return []
        if None in words:
            return []
        paths += [word for word in words if word is not None]
    return paths


def pasted_paths(text: str) -> list[Path]:
    """Those that pasted text consists of: what looks like a name alone, as `README` does, is text."""
    lines = text.strip().splitlines()
    if len(text) > 10_000 or not all(
        line.strip().startswith(("/", "~/", "./", "../", "file://", "'/", '"/')) for line in lines if line.strip()
    ):
        return []
    return paths_in(text)


def _path(text: str) -> Path | None:
    """What is there under that name."""
    if text.startswith("file://"):
        try:
            address = urlsplit(text)
        except ValueError:  # no address at all
            return None
        if address.netloc not in ("", "localhost"):
            return None
        text = unquote(address.path)
    path = os.path.expanduser(text)  # noqa: PTH111 - Path's fails where there is no such home
    return Path(path) if text and os.path.exists(path) else None  # noqa: PTH110 - Path's fails on names that are too long


# -------------------------------------------------------------------------------------------------- several


def added(attachments: Sequence[Attachment], new: Attachment) -> tuple[Attachment, ...]:
    """With `new`, in the place of what was read from the same file before; under a name that none has yet."""
    if new.origin != PASTED:
        for i, old in enumerate(attachments):
            if old.origin == new.origin:
                return (*attachments[:i], replace(new, name=old.name), *attachments[i + 1 :])
    taken = {a.name for a in attachments}
    if new.name in taken and new.origin != PASTED:
        new = replace(new, name=_one_line("/".join(Path(new.origin).parts[-2:])))
    name, n = new.name, 2
    while new.name in taken:
        new = replace(new, name=f"{name} ({n})")
        n += 1
    return (*attachments, new)


def pasted(text: str, attachments: Sequence[Attachment]) -> Attachment:
    n = 1
    while f"pasted-{n}.txt" in {a.name for a in attachments}:
        n += 1
    return Attachment(f"pasted-{n}.txt", text)


# -------------------------------------------------------------------------------------------------- the template


def compose(question: str, attachments: Sequence[Attachment]) -> str:
    """What is sent to the model: the files, then the question."""
    return "".join(block(a) for a in attachments) + question


def block(attachment: Attachment) -> str:
    return _HEAD.format(attachment.name) + attachment.text + _END


def split(sent: str) -> tuple[str, tuple[Attachment, ...]]:
    """The question and the files that `compose` was given; composing them again gives `sent` exactly.

    A file that has the template's own words in it may come out as two, or with the beginning of the question: where it matters, all is there.
    """
    first, end = _FIRST_HEAD.match(sent), sent.rfind(_END)
    if first is None or end < first.end():
        return sent, ()
    names, texts = [first[1]], list[str]()
    at = first.end()
    for head in _NEXT_HEAD.finditer(sent, at, end):
        texts.append(sent[at : head.start()])
        names.append(head[1])
        at = head.end()
    texts.append(sent[at:end])
    return sent[end + len(_END) :], tuple(map(Attachment, names, texts))


def has_files(sent: str) -> bool:
    """It looks so, by its first line."""
    return sent.startswith(_HEAD.partition("{")[0])


def brief(sent: str) -> str:
    """What was sent, for a title or a list: the question, and what goes with it."""
    question, attachments = split(sent)
    if not attachments:
        return question
    more = f" and {len(attachments) - 1} more" if len(attachments) > 1 else ""
    return f"[{attachments[0].name}{more}] {question}".rstrip()


def size_text(nbytes: int) -> str:
    if nbytes < 1000:
        return f"{nbytes} B"
    return f"{nbytes / 1e3:,.1f} kB" if nbytes < 999_950 else f"{nbytes / 1e6:,.1f} MB"


def _one_line(name: str) -> str:
    """A name is data, whoever chose it: half a surrogate pair, control characters and line breaks do not get through."""
    return " ".join(printable(name.encode("utf-8", "replace").decode()).split())
