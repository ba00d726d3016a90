"""The report in figures, as JSON and as a page: true, whole, and safe to open whatever names a file brings in."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from backends.compare import Comparison
from localr1 import paths
from quantize import report_svg
from quantize.convert import Report, convert, open_source
from quantize.evaluate import Evaluation
from quantize.loss import TensorLoss
from quantize.recipe import MIXES
from quantize.report import by_format, mean_relative_error, merged, place, report_json, worst
from quantize.report_html import report_html
from quantize.report_svg import Point, heat_map, size_plot
from quantize.report_text import percent, size, visible
from quantize.sizes import mix_sizes

STUDENT = paths.assets() / "r1-tiny"
NASTY = "<script>alert('x')</script>\u202e\x1b[31m&\"\ud800"
SVG = "{http://www.w3.org/2000/svg}"


def tensor(name: str, shape: tuple[int, ...], form: str, nbytes: int, error: float) -> TensorLoss:
    """Of relative error `error`, weights 1."""
    n = math.prod(shape)
    return TensorLoss(name, shape, form, nbytes, error**2 * n, float(n) if error else 0.0)


LOSSES = (
    tensor("token_embd.weight", (4, 256), "Q4_K", 576, 0.08),
    *(
        t
        for i in range(3)
        for t in (
            tensor(f"blk.{i}.attn_norm.weight", (256,), "F32", 1024, 0),
            tensor(f"blk.{i}.ffn_down.weight", (2, 256), "Q6_K", 420, 0.02),
            tensor(f"blk.{i}.attn_q.weight", (2, 256), "Q4_K", 288, 0.07 + i / 100),
        )
    ),
)
REPORT = Report(
    source=Path("/models/source"), target=Path("/models/m.gguf"), format="Q4_K_M", architecture="qwen2", tensors=10, parameters=4864,
    source_bytes=20_000, target_bytes=8_000, bits_per_weight=6.5, fallbacks=(("blk.0.ffn_down.weight", "Q6_K"),), warnings=("loses twice",),
    losses=LOSSES, seconds=0.5,
)  # fmt: skip
EVALUATION = Evaluation(
    comparison=Comparison(1020, 0.0123, 0.456, 0.97, 10.0, 10.5), engine="gguf", baseline="BF16", material="the held-out text",
    windows=4, window_tokens=512, tasks={"add": (1.0, 0.95)}, seconds=3.0,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- figures


def test_means_are_of_weights_not_of_tensors() -> None:
    """1,024 weights at 8%, 1,536 at 2%, 512 each at 7, 8 and 9%, and 768 that are exact."""
    wanted = (1024 * 0.08 + 1536 * 0.02 + 512 * (0.07 + 0.08 + 0.09)) / (1024 + 1536 + 1536 + 768)
    assert mean_relative_error(LOSSES) == pytest.approx(wanted, rel=1e-12)
    found = {s.format: s for s in by_format(REPORT)}
    assert [s.format for s in by_format(REPORT)] == ["Q4_K", "Q6_K", "F32"]
    assert (found["Q4_K"].tensors, found["Q4_K"].parameters, found["Q4_K"].nbytes) == (4, 2560, 1440)
    assert found["Q4_K"].relative_error == pytest.approx((1024 * 0.08 + 512 * 0.24) / 2560)
    assert found["Q4_K"].rmse == pytest.approx(math.sqrt((1024 * 0.08**2 + 512 * (0.07**2 + 0.08**2 + 0.09**2)) / 2560))
    assert (found["F32"].rmse, found["F32"].relative_error) == (0, 0)


def test_the_worst_come_first_and_exact_ones_never() -> None:
    assert [t.name for t in worst(REPORT, 2)] == ["blk.2.attn_q.weight", "token_embd.weight"]
    assert len(worst(REPORT, 100)) == 7
    assert worst(replace(REPORT, losses=LOSSES[1:2]), 3) == []


def test_experts_of_a_layer_are_one_line() -> None:
    name = "model.layers.3.mlp.experts.{}.up_proj.weight"
    experts = [tensor(name.format(i), (2, 128), "FP8", 260, 0.02 * (i + 1)) for i in range(3)]
    other = tensor("model.layers.3.mlp.shared_experts.up_proj.weight", (2, 128), "FP8", 260, 0.03)
    one, same = merged([*experts, other])
    assert same == other
    assert (one.name, one.shape, one.nbytes) == (name.format("*"), (3, 2, 128), 780)
    assert one.relative_error == pytest.approx(math.sqrt((0.02**2 + 0.04**2 + 0.06**2) / 3))
    assert place(one.name) == (3, "mlp.experts.*.up_proj")
    mixed = merged([experts[0], replace(experts[1], format="BF16")])
    assert [t.format for t in mixed] == ["FP8", "BF16"]  # formats are never mixed up


def test_places() -> None:
    assert place("blk.12.ffn_down.weight") == (12, "ffn_down")
    assert place("blk.0.attn_q.bias") == (0, "attn_q.bias")
    assert place("model.layers.7.self_attn.q_proj.weight") == (7, "self_attn.q_proj")
    assert place("model.embed_tokens.weight") == (None, "model.embed_tokens")
    assert place("token_embd.weight") == (None, "token_embd")


def test_texts() -> None:
    assert [percent(x) for x in (0, 0.07123, 1, 1e-6)] == ["0", "7.12%", "100%", "0.0001%"]
    assert (size(2_028_352), size(1_117_000_000)) == ("2.0 MB", "1.12 GB")
    assert visible("a\x1b\u202e\nb é 中") == "a\ufffd\ufffd\ufffdb é 中"


@pytest.mark.parametrize("source", ["checkpoint", "gguf"])
def test_sizes_of_mixes_are_those_of_their_files(source: str, tmp_path: Path) -> None:
    model = STUDENT
    if source == "gguf":
        convert(STUDENT, model := tmp_path / "plain.gguf", "BF16")
    with open_source(model) as opened:
        sizes, without = mix_sizes(opened, imatrix=True), mix_sizes(opened)
    assert set(sizes) == set(MIXES) and "IQ2_XXS" not in without and without["IQ3_M"] == sizes["IQ3_M"]
    for name in ("F32", "Q8_0", "Q4_K_M", "Q2_K"):
        assert sum(t.nbytes for t in convert(model, tmp_path / "m.gguf", name, force=True).losses) == sizes[name]


def test_sizes_count_llamas_rope_divisors_too(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint("llama").folder
    with open_source(folder) as opened:
        sizes = mix_sizes(opened)
    assert sum(t.nbytes for t in convert(folder, tmp_path / "m.gguf", "Q8_0").losses) == sizes["Q8_0"]


# ------------------------------------------------------------------------------------------------------- JSON


def test_json_has_the_promised_keys() -> None:
    found = json.loads(json.dumps(report_json(REPORT, EVALUATION), allow_nan=False))
    assert list(found) == [
        "version", "source", "target", "format", "architecture", "parameters", "source_bytes", "target_bytes", "size_ratio",
        "bits_per_weight", "mean_relative_error", "seconds", "warnings", "fallbacks", "formats", "tensors", "not_evaluated", "evaluation", "plan",
    ]  # fmt: skip
    assert (found["version"], found["size_ratio"], found["not_evaluated"]) == (1, 2.5, None)
    assert found["tensors"][2] == {
        "name": "blk.0.ffn_down.weight", "shape": [2, 256], "format": "Q6_K", "parameters": 512, "bytes": 420,
        "rmse": pytest.approx(0.02), "relative_error": pytest.approx(0.02),
    }  # fmt: skip
    assert found["formats"][2] == {"format": "F32", "tensors": 3, "parameters": 768, "bytes": 3072, "rmse": 0, "relative_error": 0}
    assert found["fallbacks"] == [{"tensor": "blk.0.ffn_down.weight", "format": "Q6_K"}] and found["warnings"] == ["loses twice"]
    assert found["evaluation"] == {
        "tokens": 1020, "kl_mean": 0.0123, "kl_p99": 0.456, "top1_agreement": 0.97, "baseline_perplexity": 10.0, "perplexity": 10.5,
        "perplexity_ratio": 1.05, "engine": "gguf", "baseline": "BF16", "material": "the held-out text", "windows": 4,
        "window_tokens": 512, "tasks": {"add": {"source": 1.0, "target": 0.95}}, "seconds": 3.0,
    }  # fmt: skip


def test_json_says_why_there_is_no_evaluation() -> None:
    found = report_json(REPORT, "--no-eval")
    assert (found["evaluation"], found["not_evaluated"]) == (None, "--no-eval")


def test_json_is_json_whatever_happens(tmp_path: Path) -> None:
    broken = replace(EVALUATION, comparison=replace(EVALUATION.comparison, perplexity=math.inf))
    name = Path(str(tmp_path / "caf\udce9.gguf"))  # a file name that is no Unicode
    found = report_json(replace(REPORT, target=name, warnings=(f"{name} is quantized already",)), broken)
    assert json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    assert found["evaluation"]["perplexity"] is None and found["evaluation"]["perplexity_ratio"] is None
    assert found["target"].endswith("caf\ufffd.gguf")


# ------------------------------------------------------------------------------------------------------- page


class Page(HTMLParser):
    """Elements and attributes; fails on tags that do not close in order."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)


def svgs(page: str) -> list[ET.Element]:
    """The page's pictures: well-formed XML each."""
    return [ET.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]


def texts(svg: ET.Element) -> list[str]:
    return ["".join(t.itertext()) for t in svg.iter(SVG + "text")]


def test_the_page_says_it_all() -> None:
    page = report_html(REPORT, EVALUATION, [Point("Q2_K", 3_000), Point("Q8_0", 12_000)])
    words = " ".join(Page(page).words)
    for said in (
        "/models/m.gguf", "/models/source", "qwen2", "4,864 parameters", "6.50", "2.50 times as large", "4.84%", "loses twice", "0.0123", "0.456",
        "97.0%", "10 → 10.5", "1,020 predictions", "BF16 GGUF", "llama.cpp", "95%",
    ):  # fmt: skip
        assert said in words, said
    for t in LOSSES:
        assert t.name in words and percent(t.relative_error) in words
    assert len(svgs(page)) == 2


def test_the_page_without_an_evaluation_says_why() -> None:
    page = report_html(REPORT, "nothing here runs it")
    assert "not measured: nothing here runs it" in " ".join(Page(page).words)
    assert any("4.84% error" in t for t in texts(svgs(page)[0])) and "KL" not in "".join(texts(svgs(page)[0]))


def test_the_page_needs_nothing_else() -> None:
    page = report_html(REPORT, EVALUATION, [Point("Q2_K", 3_000)])
    tags = Page(page).tags
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "a", "use", "image"}
    assert not any(key in ("src", "href", "xlink:href") or key.startswith("on") for _, attributes in tags for key in attributes)
    assert "url(" not in page and "@import" not in page
    assert set(re.findall(r"https?://[^\"' ]+", page)) == {"http://www.w3.org/2000/svg"}  # a name, which nothing fetches
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"}) in tags


def test_names_from_files_are_shown_not_obeyed() -> None:
    """Tensor names of a stranger's GGUF file, paths, warnings."""
    nasty = tensor(f"blk.0.{NASTY}.weight", (2, 256), NASTY, 10, 0.5)
    outside = tensor(NASTY, (2, 256), "Q4_K", 10, 0.4)
    report = replace(
        REPORT, losses=(*LOSSES, nasty, outside), target=Path(f"/{NASTY}"), source=Path(f"/{NASTY}"), warnings=(NASTY,), architecture=NASTY
    )
    evaluation = replace(EVALUATION, material=NASTY, tasks={NASTY: (1.0, 1.0)})
    page = report_html(report, evaluation, [Point(NASTY, 3_000), Point(NASTY, 5_000, 0.01)])
    assert page.encode("utf-8")
    tags = {tag for tag, _ in Page(page).tags}
    assert "script" not in tags and "\x1b" not in page and "\u202e" not in page
    assert "&lt;script&gt;alert(" in page
    assert len(svgs(page)) == 2
    assert "script" not in {tag for tag, _ in Page(report_html(report, NASTY)).tags}


def test_long_lists_are_folded() -> None:
    many = tuple(tensor(f"blk.{i}.ffn_up.weight", (2, 256), "Q4_K", 288, 0.07) for i in range(400))
    assert ("details", {}) in Page(report_html(replace(REPORT, losses=many), "x")).tags
    assert ("details", {"open": None}) in Page(report_html(REPORT, "x")).tags


# ------------------------------------------------------------------------------------------------------- pictures


def test_the_plot_puts_things_where_they_are() -> None:
    points = [Point("Q2_K", 2_000), Point("Q6_K", 10_000), Point("F32", 40_000), Point("mine", 5_000, 0.02)]
    svg = ET.fromstring(size_plot(REPORT, EVALUATION, points))
    ours = next(c for c in svg.iter(SVG + "circle") if c.get("class") == "ours")
    source = next(c for c in svg.iter(SVG + "circle") if c.get("class") == "hollow")
    nbytes = sum(t.nbytes for t in LOSSES)
    marks = {"Q2_K": 2_000, "Q6_K": 10_000}
    leads = [float(p.get("d", "")[1:].split()[0]) for p in svg.iter(SVG + "path") if p.get("class") == "lead"]
    diamond = next(p for p in svg.iter(SVG + "path") if p.get("class") == "other")
    x, y = (float(v) for v in re.findall(r"[\d.]+", diamond.get("d", ""))[:2])
    at = {nbytes: float(ours.get("cx", "")), 20_000: float(source.get("cx", "")), 5_000: x, **dict(zip(marks.values(), leads, strict=True))}
    scale = (at[20_000] - at[2_000]) / math.log(10)
    for size_, place_ in at.items():  # logarithmic
        assert place_ == pytest.approx(at[2_000] + scale * math.log(size_ / 2_000), abs=0.2)
    zero, top = float(source.get("cy", "")), float(ours.get("cy", ""))
    assert (zero - (y + 5)) / (zero - top) == pytest.approx(0.02 / 0.0123, rel=0.01)
    shown = texts(svg)
    assert "source" in shown and any("KL 0.0123" in t for t in shown) and "mine" in shown
    assert "F32" not in "".join(shown)  # larger than the source


def test_names_below_the_axis_never_overlap_and_stay_inside() -> None:
    points = [Point(f"M{i}", 2_000 + i) for i in range(40)] + [Point(f"N{i}", 19_900 + i) for i in range(10)]
    svg = ET.fromstring(size_plot(REPORT, "no", points))
    places = sorted(
        float(re.findall(r"translate\(([\d.-]+)", t.get("transform", ""))[0]) for t in svg.iter(SVG + "text") if t.get("transform")
    )
    assert len(places) == 50
    assert min(b - a for a, b in pairwise(places)) > 13
    assert places[0] > 0 and places[-1] < report_svg.WIDTH


def test_a_lossless_conversion_can_be_drawn() -> None:
    exact = tuple(replace(t, squared_error=0.0) for t in LOSSES)
    for svg in svgs(report_html(replace(REPORT, losses=exact), "no")):
        assert "nan" not in ET.tostring(svg, "unicode")


def test_the_heat_map_has_a_cell_for_every_matrix() -> None:
    svg = ET.fromstring(heat_map(LOSSES))
    cells = {"".join(g.find(SVG + "title").itertext()): g for g in svg.iter(SVG + "g")}  # type: ignore[union-attr]
    assert len(cells) == 7  # six in layers, the embedding outside; norms are no matrices
    rows: dict[str, set[str]] = {}
    for title, cell in cells.items():
        name, form = re.match(r"(\S+)\.weight: (\S+), relative error", title).groups()  # type: ignore[union-attr]
        rect, label = cell.find(SVG + "rect"), cell.find(SVG + "text")
        assert rect is not None and label is not None
        rows.setdefault(rect.get("y", ""), set()).add(name)
        assert label.text is not None and label.text.startswith(f"{form} ") and label.text.endswith("%")  # said without colour too
    assert sorted(map(sorted, rows.values())) == [[f"blk.{i}.attn_q", f"blk.{i}.ffn_down"] for i in range(3)] + [["token_embd"]]
    shades = {title.split(":")[0]: cell.find(SVG + "rect").get("class") for title, cell in cells.items()}  # type: ignore[union-attr]
    assert shades["blk.2.attn_q.weight"] == "h6" and shades["blk.0.ffn_down.weight"] == "h1"
    headings = [t for t in texts(svg) if t in ("attn_q", "ffn_down", "token_embd")]
    assert headings == ["attn_q", "ffn_down", "token_embd"]  # in the order in which a layer computes


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colours", "page"), [(report_svg.LIGHT, "#ffffff"), (report_svg.DARK, "#16181a")])
def test_cells_can_be_read_and_told_apart(colours: tuple[str, ...], page: str) -> None:
    """WCAG's contrast of 4.5 to 1 between text and cell; and the error grows away from the page's own background."""
    backs = [pair.split()[0] for pair in colours]
    for pair in colours:
        low, high = sorted(luminance(c) for c in pair.split())
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair
    steps = [abs(luminance(back) - luminance(page)) for back in backs]
    assert steps == sorted(steps)
