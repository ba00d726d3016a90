"""`localr1 pull`, `list`, `show` and `rm`: their command lines, and what they print. The work is in hub, fetching and library."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localr1.library import Model
    from localr1.model_facts import Facts

_REF = "a short name (r1:7b), or owner/name[:file-or-quantization] on the hub"
_PULL = """Downloads a model into the Hugging Face cache, where other tools find it too. Without REF: the R1 family, what fits this machine and how
fast it would be. HF_TOKEN, HF_HOME, HF_ENDPOINT and HF_HUB_OFFLINE are honoured; what was interrupted goes on."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the four to the program's commands."""
    pull = commands.add_parser("pull", help="download a model, or show which ones there are", description=_PULL)
    pull.add_argument("ref", nargs="?", metavar="REF", help=_REF)
    pull.add_argument(
        "--quant", default="", metavar="Q", help="a quantization: Q4_K_M, Q6_K, ...; of MLX folders 4bit, 8bit (default: what fits)"
    )
    pull.add_argument("--source", action="store_true", help="the unquantized safetensors")
    pull.add_argument("--format", choices=["gguf", "mlx"], help="default: mlx on Apple silicon, else gguf")
    pull.add_argument("--yes", action="store_true", help="do not ask")
    pull.add_argument("--force", action="store_true", help="a model that does not fit this machine's memory, too")
    pull.set_defaults(run=run_pull, wrong=pull.error)

    listed = commands.add_parser("list", help="the models that are here")
    listed.set_defaults(run=run_list)

    show = commands.add_parser("show", help="what is known of a model, from its header")
    show.add_argument("ref", metavar="REF", help="a name that `localr1 list` shows, a short name, a GGUF file or a checkpoint folder")
    show.set_defaults(run=run_show)

    remove = commands.add_parser("rm", help="remove a model")
    remove.add_argument("ref", metavar="REF", help="a name that `localr1 list` shows")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    remove.set_defaults(run=run_rm)
    for command in (pull, listed, show):
        command.add_argument("--json", action="store_true", help="print JSON")


def run_pull(args: argparse.Namespace) -> int:
    from localr1.pulling import pull, show_family

    if args.ref is None:
        if args.quant or args.source or args.format:
            args.wrong("--quant, --source and --format go with a REF, for example r1:7b")
        show_family(args.json)
        return 0
    if args.source and (args.quant or args.format):
        args.wrong("--source takes the unquantized safetensors; leave --quant and --format away")
    pull(args.ref, quant=args.quant, source=args.source, form=args.format, sure=args.yes or args.force, as_json=args.json)
    return 0


def run_list(args: argparse.Namespace) -> int:
    from localr1.library import models, short_names
    from localr1.output import put_json, put_table
    from quantize.report_text import size

    found, short = models(), short_names()
    if args.json:
        put_json({"models": [as_json(model) | {"short_name": short.get(model.path)} for model in found]})
        return 0
    put_table(
        ("name", "size", "format", "context", "fits", "last used", "what it is"),
        [
            (
                short.get(m.path, m.name), size(m.nbytes), " ".join(dict.fromkeys((m.form, m.quant))), f"{m.facts.context:,}" if m.facts and m.facts.context else "?",
                "yes" if m.fits else "no", _ago(m.used_s), m.problem or f"{m.title} ({m.kind})",
            )
            for m in found
        ],
        numbers=(1, 3),
    )  # fmt: skip
    if not any(m.kind == "pulled" for m in found):
        print("localr1: `localr1 pull` shows the R1 models that can be had", file=sys.stderr)
    return 0


def run_show(args: argparse.Namespace) -> int:
    from pathlib import Path

    from localr1.library import BUNDLED, named_model
    from localr1.model_facts import read_facts, title
    from localr1.output import put, put_json
    from localr1.trace.words import on_one_line
    from quantize.report_text import size

    path = Path(args.ref)
    model = None if path.exists() and args.ref != BUNDLED else named_model(args.ref)
    path = model.path if model else path
    facts = read_facts(path)
    if args.json:
        put_json({"name": args.ref, "path": str(path), **facts_json(facts)} | (as_json(model) if model else {}))
        return 0
    lines = {
        "model": model.title if model else title(path.stem, facts),
        "file" if facts.form == "gguf" else "folder": str(path),
        "architecture": facts.architecture,
        "parameters": f"{facts.parameters:,}",
        "tensors": f"{size(facts.tensor_bytes)}, {facts.bits_per_weight:.2f} bits per weight",
        "formats": ", ".join(f"{count} {form}" for form, count in facts.formats.items()),
        "context": f"{facts.context:,} tokens" if facts.context else "not said",
        "chat template": "yes" if facts.template else "none",
        "base": facts.base or "not said",
        "licence": facts.licence or "not said",
        "fitted": _fit(facts.fit),
    }
    for name, value in lines.items():
        if value:
            put(f"{name + ':':<15}{on_one_line(value)}")
    return 0


def run_rm(args: argparse.Namespace) -> int:
    from localr1.hub_errors import HubError
    from localr1.library import named_model, remove
    from localr1.output import put
    from localr1.pulling import asked
    from localr1.text import printable
    from quantize.report_text import size

    model = named_model(args.ref)
    if model.kind == "bundled":
        remove(model)  # says why not
    print(f"{printable(model.title)}, {size(model.nbytes)}:", file=sys.stderr)
    for file in model.files:
        print(f"  {printable(str(file))}", file=sys.stderr)
    if not args.yes and not asked("remove it?"):
        raise HubError("nothing was removed; --yes removes without a question")
    put(f"removed {printable(model.name)}: {size(remove(model))} are free")
    return 0


def as_json(model: Model) -> dict[str, Any]:
    own = {
        "name": model.name, "title": model.title, "kind": model.kind, "format": model.form, "quant": model.quant, "path": str(model.path),
        "size_bytes": model.nbytes, "fits": model.fits, "last_used": model.used_s, "problem": model.problem or None,
    }  # fmt: skip
    return own | (facts_json(model.facts) if model.facts else {})


def facts_json(facts: Facts) -> dict[str, Any]:
    import json

    try:
        fit = json.loads(facts.fit) if facts.fit else None
    except ValueError:
        fit = None
    return {
        "format": facts.form, "architecture": facts.architecture, "parameters": facts.parameters, "tensor_bytes": facts.tensor_bytes,
        "bits_per_weight": round(facts.bits_per_weight, 3), "tensor_formats": facts.formats, "context": facts.context or None,
        "chat_template": facts.template, "base": facts.base or None, "licence": facts.licence or None, "fit": fit,
    }  # fmt: skip


def _fit(note: str) -> str:
    """Of `quantize --fit`'s note, what a person wants to know."""
    import json

    from quantize.report_text import size

    try:
        plan = json.loads(note) if note else None
        if not plan:
            return ""
        loss = plan["expected_kl"]
        return f"by localr1 quantize --fit, to {size(int(plan['budget_bytes']))}" + (f", expected KL divergence {loss:.3g}" if loss else "")
    except (ValueError, LookupError, TypeError):
        return "by localr1 quantize --fit, with a note that cannot be read"


def _ago(at_s: float | None) -> str:
    import time

    if at_s is None:
        return "-"
    minutes = max(0, int((time.time() - at_s) / 60))
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days ago"
