"""`localr1 doctor`: what is installed and what this machine has, whether the engines work and agree, and what to do if not.

`--json` prints one object, for sending back; the home folder in it is written ~, and nothing else in it is personal:

    ok            bool: nothing that is needed is broken          todo      [str]: what to do, the needed first
    versions      {package: "1.2.3" or ""}, "" where it is not installed; python, system
    backends      {gguf, mlx, reference: {version, device, missing}}; missing says why and what to do, "" where it is here
    hardware      {chip, architecture, unified_memory, physical_cores, performance_cores, gpus: [{name, backend, total_bytes, ...}]}
    memory        {total_bytes, available_bytes, for_models_bytes}: what models may take now, memory of GPUs counted in
    self_tests    {backend: {tokens: "1 2 3", text, load_s, tokens_per_s, error}}: the bundled model, greedily
    same_tokens   bool or null: whether those that ran agree; null if fewer than two ran
    paths         {cache, data, models: {path, writable: bool, free_bytes}}
    terminal      {term, colour, no_color, program, columns, lines, encoding, is_terminal}
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from backends.hardware import Engine, Machine
    from localr1.self_test import SelfTest

PACKAGES = ("llama-cpp-python", "mlx", "mlx-lm", "textual", "numpy", "huggingface-hub", "tokenizers")
BACKENDS = ("gguf", "mlx", "reference")
NAMES = {"gguf": "llama.cpp", "mlx": "MLX", "reference": "reference"}
LEAST_COLUMNS, LABEL = 40, 14

Mark = Literal["ok", "note", "BAD", ""]
_STYLES = {"ok": "green", "note": "yellow", "BAD": "bold red", "": ""}


class Place(NamedTuple):
    """A folder the program writes to, or would make."""

    path: str
    writable: bool
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Terminal:
    term: str
    colour: str
    no_color: bool
    program: str
    columns: int
    lines: int
    encoding: str
    is_terminal: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is told; `needed` and `advised`: what to do."""

    versions: dict[str, str]
    machine: Machine
    engines: dict[str, Engine]
    for_models_bytes: int
    tests: dict[str, SelfTest]
    same_tokens: bool | None
    places: dict[str, Place]
    terminal: Terminal
    needed: list[str]
    advised: list[str]

    @property
    def ok(self) -> bool:
        return not self.needed


def doctor(as_json_object: bool) -> bool:
    """Look, and tell; whether all that is needed works."""
    from localr1.output import put_json

    report = examine()
    if as_json_object:
        put_json(as_json(report))
    else:
        show(report)
    return report.ok


# ------------------------------------------------------------------------------------------------ looking


def examine() -> Report:
    """Takes about two seconds; changes nothing."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from backends.hardware import Engine, look, version
    from backends.memory import free_bytes
    from localr1 import paths

    machine = look(paths.cache())
    engines = {"gguf": machine.llamacpp, "mlx": machine.mlx, "reference": Engine(f"numpy {version('numpy')}", "CPU")}
    places = {"cache": place(paths.cache()), "data": place(paths.data()), "models": place(Path(HF_HUB_CACHE))}
    tests = _self_tests([name for name in BACKENDS if engines[name].here])
    worked = [test.tokens for test in tests.values() if not test.error]
    same = len(set(worked)) == 1 if len(worked) > 1 else None
    needed, advised = _todo(machine, engines, tests, same, places)
    return Report(_versions(), machine, engines, free_bytes(machine), tests, same, places, _terminal(), needed, advised)


def _self_tests(names: list[str]) -> dict[str, SelfTest]:
    from localr1.self_test import self_test

    with ThreadPoolExecutor(len(names)) as pool:
        return dict(zip(names, pool.map(self_test, names), strict=True))


def _todo(
    machine: Machine, engines: dict[str, Engine], tests: dict[str, SelfTest], same: bool | None, places: dict[str, Place]
) -> tuple[list[str], list[str]]:
    """What is broken, and what would be better otherwise."""
    needed, advised = [], []
    for name, engine in engines.items():
        optional = name == "mlx" and not machine.unified_memory
        if not engine.here and not optional:
            needed.append(f"{NAMES[name]}: {engine.missing}")
    needed += [f"{NAMES[name]} fails its self-test: {test.error}" for name, test in tests.items() if test.error]
    if same is False:
        needed.append("the engines do not agree on the bundled model; set localr1 up again: make clean && make setup")
    for name, found in places.items():
        if not found.writable:
            variable = {"cache": "XDG_CACHE_HOME", "data": "XDG_DATA_HOME", "models": "HF_HOME"}[name]
            needed.append(f"{found.path} cannot be written; change its permissions, or set {variable} to another folder")
    if machine.llamacpp.here and not machine.gpus and (gpu := _unused_gpu(machine)):
        advised.append(f"llama.cpp was built without {gpu}; in localr1's folder: make clean && make setup ENGINE={gpu.lower()}")
    if 0 < places["models"].free_bytes < 5e9:
        advised.append(
            f"{places['models'].free_bytes / 1e9:.1f} GB of disk are free, and an 8B model takes 5 GB; make room before a download"
        )
    return needed, advised


def _unused_gpu(machine: Machine) -> str:
    """What llama.cpp could have been built for here."""
    if machine.unified_memory:
        return "Metal"
    return "CUDA" if shutil.which("nvidia-smi") else ""


def _versions() -> dict[str, str]:
    from backends.hardware import version
    from localr1 import __version__

    mac = platform.mac_ver()[0]
    system = f"macOS {mac}" if mac else f"{platform.system()} {platform.release()}"
    return {"localr1": __version__, "python": platform.python_version()} | {name: version(name) for name in PACKAGES} | {"system": system}


def place(folder: Path) -> Place:
    """Tried with a file that has no name, so that nothing is left behind."""
    from backends.hardware import disk_free

    there = next((one for one in (folder, *folder.parents) if os.path.exists(one)), folder)  # noqa: PTH110 - Path's fails where one may not look
    try:
        with tempfile.TemporaryFile(dir=there):
            writable = True
    except OSError:
        writable = False
    return Place(str(folder), writable, disk_free(folder))


def _terminal() -> Terminal:
    """Of whichever stream is one: of `doctor --json > file`, what it was called from."""
    from rich.console import Console

    columns = lines = 0
    for stream in (1, 2, 0):
        with suppress(OSError):
            columns, lines = os.get_terminal_size(stream)
            break
    get, colour = os.environ.get, Console(force_terminal=True).color_system
    return Terminal(
        get("TERM", ""), colour or "none", bool(get("NO_COLOR")), get("TERM_PROGRAM", ""), columns, lines, sys.stdout.encoding, columns > 0
    )


# ------------------------------------------------------------------------------------------------ telling


def as_json(report: Report) -> dict[str, Any]:
    """See the module's docstring."""
    machine = asdict(report.machine)
    chosen = ("chip", "architecture", "unified_memory", "physical_cores", "performance_cores", "gpus")
    found: dict[str, Any] = dict(
        ok=report.ok,
        todo=report.needed + report.advised,
        versions=report.versions,
        backends={name: asdict(engine) for name, engine in report.engines.items()},
        hardware={key: machine[key] for key in chosen},
        memory={key: machine[key] for key in ("total_bytes", "available_bytes")} | {"for_models_bytes": report.for_models_bytes},
        self_tests={name: asdict(test) | {"tokens": " ".join(map(str, test.tokens))} for name, test in report.tests.items()},
        same_tokens=report.same_tokens,
        paths={name: found._asdict() for name, found in report.places.items()},
        terminal=asdict(report.terminal),
    )
    tidied: dict[str, Any] = without_home(found)
    return tidied


def without_home(value: Any) -> Any:
    """Texts with ~ for the home folder, which has the person's name in it."""
    if isinstance(value, dict):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_home(item) for item in value]
    if isinstance(value, str):
        for home in sorted({str(Path.home()), str(Path.home().resolve())}, key=len, reverse=True):
            value = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", value) if len(home) > 1 else value
    return value


def show(report: Report) -> None:
    """On stdout: a block for each subject; the marks say in words what the colours say."""
    from localr1.output import console

    out = console()
    width = max(LEAST_COLUMNS, out.width) if out.is_terminal else 0
    for title, rows in _blocks(report):
        _line(title, style="bold")
        for mark, label, text in rows:
            _row(mark, label, str(without_home(text)), width)
    _line("")
    if report.ok and not report.advised:
        _line("All well.", style="bold green")
        return
    _line("It works." if report.ok else "Something is broken.", style="bold" if report.ok else "bold red")
    for mark, todo in (*(("BAD", text) for text in report.needed), *(("note", text) for text in report.advised)):
        _row(mark, "to do", str(without_home(todo)), width)


def _blocks(report: Report) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    machine, rows = report.machine, []
    versions = [f"{name}\xa0{version or 'missing'}" for name, version in report.versions.items()]
    yield "Versions", [("", "", ", ".join(versions))]
    for name, engine in report.engines.items():
        optional = name == "mlx" and not machine.unified_memory
        mark = "ok" if engine.here else "note" if optional else "BAD"
        text = (
            f"{engine.version} on the {_device(engine.device)}" if engine.here else ("optional here: " if optional else "") + engine.missing
        )
        rows.append((mark, NAMES[name], text))
    yield "Backends", rows
    yield "Machine", list(_hardware(report))
    yield (
        "Self-test: the bundled model, 24 tokens",
        [
            ("BAD", NAMES[name], test.error)
            if test.error
            else ("ok", NAMES[name], f"loaded in {test.load_s:.1f} s, {test.tokens_per_s:.0f} tokens/s")
            for name, test in report.tests.items()
        ]
        + ([] if report.same_tokens is None else [_agreement(report.same_tokens)]),
    )
    yield (
        "Folders",
        [
            (
                "ok" if found.writable else "BAD",
                name,
                f"{found.path} ({_gb(found.free_bytes)} free{'' if found.writable else ', cannot be written'})",
            )
            for name, found in report.places.items()
        ],
    )
    t = report.terminal
    shape = f"{t.columns}x{t.lines}" if t.is_terminal else "not a terminal here"
    facts = [t.term or "no TERM", shape, f"colours: {t.colour}{' (NO_COLOR)' if t.no_color else ''}", t.encoding, t.program]
    yield "Terminal", [("", "", ", ".join(filter(None, facts)))]


def _hardware(report: Report) -> Iterator[tuple[str, str, str]]:
    machine = report.machine
    cores = f"{machine.physical_cores} cores"
    if machine.performance_cores != machine.physical_cores:
        cores += f", {machine.performance_cores} of them fast"
    yield "", "chip", f"{machine.chip} ({machine.architecture}), {cores}"
    unified = ", shared with the GPU" if machine.unified_memory else ""
    yield (
        "",
        "memory",
        f"{_gb(machine.total_bytes)}{unified}; {_gb(machine.available_bytes)} free, {_gb(report.for_models_bytes)} for models",
    )
    for gpu in machine.gpus:
        yield "", "GPU", f"{gpu.name} ({gpu.backend}): {_gb(gpu.total_bytes)}, {_gb(gpu.free_bytes)} free"
    if not machine.gpus:
        yield "", "GPU", "none that llama.cpp can use"


def _agreement(same: bool) -> tuple[str, str, str]:
    return ("ok", "agreement", "the same tokens from all") if same else ("BAD", "agreement", "they write different tokens")


def _device(device: str) -> str:
    return device.upper() if device in ("cpu", "gpu") else device


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"


def _row(mark: str, label: str, text: str, width: int) -> None:
    """`width` 0: no end to the line."""
    from rich.text import Text

    begin = f"  {mark:<5}{label:<{LABEL}}" if label else "  "
    room = width - len(begin)
    lines = textwrap.wrap(text, room, break_on_hyphens=False) if width else [text]
    lines = [line.replace("\xa0", " ") for line in lines]
    first = Text(begin + (lines[0] if lines else ""))
    first.stylize(_STYLES[mark], 2, 2 + len(mark))
    _line(first)
    for line in lines[1:]:
        _line(" " * len(begin) + line)


def _line(text: Any, style: str = "") -> None:
    from localr1.output import console, put

    out = console()
    if out.is_terminal:
        out.print(text, style=style, soft_wrap=True, markup=False)
    else:
        put(str(text).rstrip())
