"""`localr1 pull` at the terminal: the family, the plan, the question, the progress."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import ModelFileError
from localr1 import library
from localr1.aliases import FAMILY
from localr1.choosing import PREFERRED, Form
from localr1.fetching import Progress, check_disk, download
from localr1.fitting import REST_BYTES, bandwidth, fits, is_apple_silicon, machine, tokens_per_s
from localr1.hub import Plan, plan
from localr1.hub_errors import HubError
from localr1.model_facts import read_facts
from localr1.output import put, put_json, put_table
from localr1.text import printable
from quantize.report_text import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

READING_TOKENS_PER_S = 8  # below, waiting for a long thought is no fun


def pull(ref: str, *, quant: str, source: bool, form: Form | None, sure: bool, as_json: bool) -> None:
    """Raises HubError, ModelFileError."""
    found = _plan(ref, quant, source, form)
    if found is None:
        return
    if not as_json:
        for line in plan_lines(found):
            print(printable(line), file=sys.stderr)
    check_disk(found)
    if found.missing_bytes and not found.fits and not sure and not asked("it does not fit; download it all the same?"):
        raise HubError(f"{found.title} does not fit this machine's memory; choose a smaller model or --quant, or pass --force")
    path = _download(found) if found.missing_bytes else download(found)
    try:
        read_facts(path)
    except ModelFileError as error:
        if found.missing_bytes:
            raise
        name = f"{found.repo}:{found.quant or path.name}" if found.form == "gguf" else found.repo
        raise HubError(f"what is here is damaged ({error}); remove it with localr1 rm {name}, then pull it again") from None
    if as_json:
        put_json(plan_json(found) | {"path": str(path)})
    else:
        exact = f"{found.repo}:{found.quant}" if found.form == "gguf" and found.quant else found.repo
        name = exact if quant or source else found.ref
        put(f"{printable(found.title)} is here: localr1 chat {printable(name)}")


def _plan(ref: str, quant: str, source: bool, form: Form | None) -> Plan | None:
    try:
        return plan(ref, quant=quant, source=source, form=form)
    except HubError as error:
        path = None if quant or source or form else library.find(ref)
        if path is not None and "HF_HUB_OFFLINE" in str(error):
            raise HubError(f"HF_HUB_OFFLINE is set, and {ref} is here already: localr1 chat {ref}") from None
        raise


def plan_lines(found: Plan) -> list[str]:
    """What would come, how large, where to, whether it fits."""
    total, free = machine()
    parts = f", {len(found.files)} files" if len(found.files) > 1 else ""
    lines = [
        found.title,
        f"  from    {found.repo}{parts}",
        f"  size    {size(found.total_bytes)}" + _rest(found),
        f"  to      {found.folder}",
    ]
    verdict = "fits" if found.fits else "does not fit"
    lines.append(f"  memory  {verdict}: needs about {size(found.needs_bytes)} of {size(total)}, {size(free)} are free now")
    if found.others and not found.fits:
        smaller = [f"{name} {size(n)}" for name, n in sorted(found.others.items(), key=lambda item: item[1]) if fits(n)]
        lines.append(f"  others  {', '.join(smaller) or 'none that fits; `localr1 pull` shows smaller models'}")
    return lines


def _rest(found: Plan) -> str:
    if not found.missing_bytes:
        return ", all of it is here"
    return "" if found.missing_bytes == found.total_bytes else f", {size(found.missing_bytes)} still to come"


def plan_json(found: Plan) -> dict[str, Any]:
    total, free = machine()
    return {
        "ref": found.ref, "repo": found.repo, "commit": found.commit, "title": found.title, "format": found.form, "quant": found.quant,
        "files": [{"name": f.name, "size_bytes": f.nbytes, "hash": f.etag} for f in found.files],
        "total_bytes": found.total_bytes, "downloaded_bytes": found.missing_bytes, "fits": found.fits, "needs_bytes": found.needs_bytes,
        "memory_bytes": total, "memory_free_bytes": free,
    }  # fmt: skip


def show_family(as_json: bool) -> None:
    """The R1 family on this machine: size, fit, expected speed; the network is not asked."""
    speed = bandwidth()
    rows = []
    for alias in FAMILY:
        here = library.find(alias.name)
        rows.append((alias, fits(alias.q4_bytes), tokens_per_s(alias.q4_bytes, speed), here))
    best = [alias for alias, fit, rate, _ in rows if fit and rate >= READING_TOKENS_PER_S] or [a for a, fit, _, _ in rows if fit][:1]
    choice = max(best, key=lambda alias: alias.parameters) if best else None
    if as_json:
        put_json(
            {
                "models": [
                    {
                        "name": a.name, "title": a.title, "parameters": int(a.parameters), "size_bytes": int(a.q4_bytes), "quant": PREFERRED,
                        "fits": fit, "tokens_per_s": round(rate, 1), "path": str(here) if here else None,
                        "repositories": [{"name": r.name.format(bits="4bit"), "checked": r.checked} for r in (*a.gguf, a.mlx, a.source)],
                    }
                    for a, fit, rate, here in rows
                ],
                "bandwidth_bytes_per_s": round(speed.bytes_per_s), "bandwidth_known": speed.known,
                "recommended": choice.name if choice else None, "memory_bytes": machine()[0],
            }
        )  # fmt: skip
        return
    put_table(
        ("name", "size", "fits", "tokens/s", "here", "what it is"),
        [
            (a.name, f"{a.q4_bytes / 1e9:.1f} GB", "yes" if fit else "no", f"{rate:.0f}" if fit else "-", "yes" if here else "-", a.title)
            for a, fit, rate, here in rows
        ],
        numbers=(1, 3),
    )
    put(
        f"sizes are about those of {'4-bit MLX folders' if is_apple_silicon() else PREFERRED}; fits: with {size(REST_BYTES)} beside the weights"
    )
    put(f"tokens/s: what {speed.bytes_per_s / 1e9:.0f} GB/s of memory bandwidth allow ({speed.known})")
    put(f"recommended here: localr1 pull {choice.name}" if choice else "none of them fits this machine; the bundled model does")


def asked(question: str) -> bool:
    """On a terminal; elsewhere nobody can answer."""
    if not (sys.stdin and sys.stdin.isatty()):
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _download(found: Plan) -> Path:
    """With a bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        return download(found)
    with Bar(
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=found.total_bytes, completed=0)
        return download(found, lambda progress: _tell(bar, task, progress))


def _tell(bar: Bar, task: TaskID, progress: Progress) -> None:
    words = {"loading": "", "checking": "checking ", "waiting": "waiting for another download of "}
    name = printable(Path(progress.name).name)
    bar.update(task, completed=progress.done_bytes, description=words[progress.step] + name[-40:])
