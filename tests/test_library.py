"""What is here: the hub's cache as any tool leaves it, converted files, the bundled model; `list`, `show` and `rm`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from localr1 import cli, fitting, library, model_commands, model_facts, paths, pulling
from localr1.aliases import alias_of
from localr1.hub_errors import HubError

STUDENT = paths.assets() / "r1-tiny"
REPO = "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF"
STEM = "DeepSeek-R1-Distill-Qwen-1.5B"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The hub's cache folder, and this program's, both empty; a machine of 8 GB."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fitting, "machine", lambda: (8 * 10**9, 6 * 10**9))
    for module in (fitting, library):
        monkeypatch.setattr(module, "is_apple_silicon", lambda: False)
    yield tmp_path / "hub"


@pytest.fixture(scope="session")
def weights(student_gguf: Path) -> bytes:
    return student_gguf.read_bytes()


def put(cache: Path, repo: str, files: dict[str, bytes], commit: str = "c" * 40, main: bool = True) -> Path:
    """As huggingface_hub stores a revision; returns the snapshot."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for name, data in files.items():
        blob, link = folder / "blobs" / f"{hash((name, data)) & (1 << 64) - 1:064x}", snapshot / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (folder / "refs").mkdir(exist_ok=True)
    if main:
        (folder / "refs" / "main").write_text(commit)
    return snapshot


def student() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in STUDENT.iterdir() if file.is_file()}


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Through the program's own main, whether or not it has the commands already."""
    made = cli.parser

    def parser():  # type: ignore[no-untyped-def]
        main = made()
        commands = main._subparsers._group_actions[0]  # type: ignore[union-attr]
        if "pull" not in commands.choices:  # type: ignore[operator]
            model_commands.add_commands(commands)  # type: ignore[arg-type]
        return main

    with monkeypatch.context() as patch:
        patch.setattr(cli, "parser", parser)
        return cli.main(words)


def test_everything_that_can_be_run_is_listed(cache: Path, weights: bytes) -> None:
    snapshot = put(cache, REPO, {f"{STEM}-Q4_K_M.gguf": weights, f"{STEM}-Q8_0.gguf": weights + bytes(32), "README.md": b"x"})
    put(cache, "org/checkpoint", student())
    put(cache, "google/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": student()["model.safetensors"]})
    put(cache, "org/words-only", {"tokenizer.json": b"{}"})
    (cache / "datasets--a--b").mkdir()
    converted = paths.cache() / "converted" / "thing-1234-Q8_0.gguf"
    converted.parent.mkdir(parents=True)
    converted.write_bytes(weights)
    found = {m.name: m for m in library.models()}
    assert set(found) == {"r1-tiny", f"{REPO}:Q4_K_M", f"{REPO}:Q8_0", "org/checkpoint", "thing-1234-Q8_0"}
    q4 = found[f"{REPO}:Q4_K_M"]
    assert q4.path == snapshot / f"{STEM}-Q4_K_M.gguf" and q4.nbytes == len(weights) and q4.fits and q4.used_s is None
    assert q4.title == "R1-Distill, base Qwen2.5-Math-1.5B, Q4_K_M"
    assert q4.facts is not None and q4.facts.context == 4096 and q4.facts.base == "Qwen2.5-Math-1.5B"
    assert {m.kind for m in found.values()} == {"bundled", "pulled", "converted"}
    assert library.short_names() == {q4.path: "r1:1.5b"}
    assert found["org/checkpoint"].form == "safetensors" and found["org/checkpoint"].quant == "BF16"


def test_damaged_and_half_downloaded_models_do_not_hide_the_others(cache: Path, weights: bytes) -> None:
    put(cache, "a/damaged", {"m-Q4_K_M.gguf": weights[:5000]})
    put(cache, "a/no-gguf", {"m-Q8_0.gguf": student()["model.safetensors"]})
    put(cache, "a/half", {"m-Q4_K_M-00001-of-00002.gguf": weights})
    gone = put(cache, "a/gone", {"m-Q4_K_M.gguf": weights})
    (gone / "m-Q4_K_M.gguf").resolve().unlink()
    index = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).encode()
    shard = {"model-00001-of-00002.safetensors": student()["model.safetensors"], "model.safetensors.index.json": index}
    put(cache, "a/shards", {"config.json": student()["config.json"], **shard})
    put(cache, "a/good", {"m-Q4_K_M.gguf": weights})
    found = {m.name: m.problem for m in library.models()}
    assert set(found) == {"r1-tiny", "a/damaged:Q4_K_M", "a/no-gguf:Q8_0", "a/shards", "a/good:Q4_K_M"}
    assert "truncated" in found["a/damaged:Q4_K_M"] and "not a GGUF file" in found["a/no-gguf:Q8_0"]
    assert "download both again" in found["a/shards"] and not found["a/good:Q4_K_M"]


def test_a_name_finds_what_is_here(cache: Path, weights: bytes) -> None:
    assert library.find("r1:1.5b") is None and library.find(REPO) is None
    files = {f"{STEM}-{q}.gguf": weights + bytes(32 * n) for n, q in enumerate(("Q2_K", "Q4_K_M", "Q8_0"))}
    snapshot = put(cache, REPO, files)
    checkpoint = put(cache, f"deepseek-ai/{STEM}", student())
    parts = put(cache, "a/parts", {f"x/m-Q6_K-0000{n}-of-00002.gguf": weights for n in (2, 1)})
    assert library.find("r1:1.5b") == library.find("R1:1.5B") == library.find(REPO) == snapshot / f"{STEM}-Q4_K_M.gguf"
    assert library.find(f"{REPO}:q8_0") == library.find(f"{REPO}:{STEM}-Q8_0.gguf") == snapshot / f"{STEM}-Q8_0.gguf"
    assert library.find(f"deepseek-ai/{STEM}") == checkpoint
    assert library.find("a/parts") == library.find("a/parts:Q6_K") == parts / "x" / "m-Q6_K-00001-of-00002.gguf"
    assert [library.find(ref) for ref in ("r1:7b", f"{REPO}:Q5_0", "a/b", "", "../x", "no name", "a/parts:")] == [None] * 7


def test_other_tools_copies_of_the_family_are_found_by_short_name(cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    gguf = put(cache, "lmstudio-community/DeepSeek-R1-Distill-Qwen-7B-GGUF", {"DeepSeek-R1-Distill-Qwen-7B-Q6_K.gguf": weights})
    mlx = put(cache, "mlx-community/DeepSeek-R1-Distill-Qwen-7B-8bit", student())
    assert library.find("r1:7b") == gguf / "DeepSeek-R1-Distill-Qwen-7B-Q6_K.gguf"
    monkeypatch.setattr(library, "is_apple_silicon", lambda: True)
    assert library.find("r1:7b") == mlx


@pytest.mark.parametrize(
    ("repo", "name"),
    [
        ("bartowski/DeepSeek-R1-Distill-Qwen-14B-GGUF", "r1:14b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "r1:1.5b"),
        ("mlx-community/DeepSeek-R1-Distill-Qwen-7B-4bit", "r1:7b"),
        ("mlx-community/DeepSeek-R1-0528-Qwen3-8B-4bit-DWQ", "r1-0528:8b"),
        ("unsloth/DeepSeek-R1-Distill-Llama-8B-unsloth-bnb-4bit", "r1:8b"),
        ("DeepSeek-R1-Distill-Qwen-7B-UD-Q4_K_XL.gguf", "r1:7b"),
        ("DeepSeek-R1-Distill-Llama-70B-Q8_0/DeepSeek-R1-Distill-Llama-70B-Q8_0-00001-of-00002.gguf", "r1:70b"),
        ("deepseek-r1-distill-qwen-1.5b", "r1:1.5b"),
        ("mmnga/cyberagent-DeepSeek-R1-Distill-Qwen-14B-Japanese-gguf", None),
        ("huihui-ai/DeepSeek-R1-Distill-Qwen-14B-abliterated-v2-GGUF", None),
        ("x/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M-finetuned", None),
        ("x/DeepSeek-R1-Distill-Qwen-7B-Multilingual", None),
        ("Qwen/Qwen2.5-7B", None),
    ],
)
def test_a_copy_of_the_family_is_told_from_what_others_made_of_it(repo: str, name: str | None) -> None:
    alias = alias_of(repo)
    assert (None if alias is None else alias.name) == name


def test_of_several_revisions_the_one_of_main_is_meant(cache: Path, weights: bytes) -> None:
    put(cache, REPO, {f"{STEM}-Q4_K_M.gguf": weights + b"old"}, commit="a" * 40, main=False)
    new = put(cache, REPO, {f"{STEM}-Q4_K_M.gguf": weights}, commit="b" * 40)
    put(cache, REPO, {f"{STEM}-Q8_0.gguf": weights + b"8"}, commit="d" * 40, main=False)
    assert library.find("r1:1.5b") == new / f"{STEM}-Q4_K_M.gguf"
    assert len([m for m in library.models() if m.kind == "pulled"]) == 2


def test_the_default_is_the_last_used_then_the_best_that_fits(cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.default() is None
    put(cache, "a/other-GGUF", {"other-Q8_0.gguf": weights + bytes(64)})
    assert library.default() is None  # of the family only
    small = put(cache, REPO, {f"{STEM}-Q4_K_M.gguf": weights}) / f"{STEM}-Q4_K_M.gguf"
    large = put(cache, "u/DeepSeek-R1-Distill-Qwen-7B-GGUF", {"DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf": weights + bytes(10**6)})
    damaged = put(cache, "u/DeepSeek-R1-Distill-Qwen-14B-GGUF", {"DeepSeek-R1-Distill-Qwen-14B-Q4_K_M.gguf": weights[:5000]})
    assert library.default() == large / "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf" and damaged.exists()
    monkeypatch.setattr(fitting, "machine", lambda: (int((10**9 + len(weights)) / 0.8) + 1000, 0))
    assert library.default() == small
    library.used(STUDENT)
    assert library.default() == STUDENT
    library.used(small)
    assert library.default() == small
    assert [m.name for m in library.models()][:2] == [f"{REPO}:Q4_K_M", "r1-tiny"]
    small.unlink()
    assert library.default() == STUDENT  # what is gone is not meant


@pytest.mark.parametrize("text", ["", "[]", "{", '{"used": 3}', '{"used": {"a": "b"}}', '{"used": null}'])
def test_a_damaged_notebook_is_an_empty_one(cache: Path, text: str) -> None:
    notebook = paths.data() / "models.json"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(text)
    assert library.default() is None
    library.used(STUDENT)
    assert library.default() == STUDENT and [p.name for p in notebook.parent.iterdir()] == ["models.json"]


def test_a_model_that_cannot_be_reached_is_passed_over(cache: Path) -> None:
    (paths.data()).mkdir(parents=True)
    (paths.data() / "models.json").write_text(json.dumps({"used": {"/" + "x" * 300: 2.0, str(STUDENT): 1.0}}))
    assert library.used_before() == [STUDENT]
    library.used(STUDENT)


def test_a_data_folder_that_cannot_be_written_is_no_reason_to_stop(cache: Path) -> None:
    paths.data().parent.mkdir(parents=True)
    paths.data().write_text("a file")
    library.used(STUDENT)
    assert library.default() is None


def test_kept_facts_change_with_the_file(cache: Path, student_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m-Q8_0.gguf"
    file.write_bytes(student_gguf.read_bytes())
    first = model_facts.kept_facts(file)
    with monkeypatch.context() as patch:
        patch.setattr(model_facts, "read_facts", lambda path: pytest.fail("read again"))
        assert model_facts.kept_facts(file) == first
    file.write_bytes(b"GGUF no longer")
    with pytest.raises(model_facts.ModelFileError):
        model_facts.kept_facts(file)
    (paths.cache() / "headers.json").write_text("{")
    file.write_bytes(student_gguf.read_bytes())
    assert model_facts.kept_facts(file) == first


def test_rm_removes_the_file_it_names_and_nothing_else(cache: Path, weights: bytes) -> None:
    files = {f"{STEM}-Q4_K_M.gguf": weights, f"{STEM}-Q8_0.gguf": weights + b"8", "README.md": b"card"}
    snapshot = put(cache, REPO, files)
    with pytest.raises(HubError, match=f"is several models; name one: {REPO}:Q4_K_M, {REPO}:Q8_0"):
        library.named_model(REPO)
    model = library.named_model(f"{REPO}:Q8_0")
    blob = model.path.resolve()
    assert library.remove(model) == len(weights) + 1 and not blob.exists()
    assert {file.name for file in snapshot.iterdir()} == {f"{STEM}-Q4_K_M.gguf", "README.md"}
    assert library.find("r1:1.5b") == snapshot / f"{STEM}-Q4_K_M.gguf"


def test_rm_of_all_there_is_leaves_no_empty_folder(cache: Path, weights: bytes) -> None:
    put(cache, REPO, {f"{STEM}-Q4_K_M.gguf": weights})
    put(cache, "a/folder", {**student(), "extra.bin": b"not mine"})
    library.remove(library.named_model("r1:1.5b"))
    assert [entry.name for entry in cache.iterdir()] == ["models--a--folder"]
    library.remove(library.named_model("a/folder"))
    assert [file.name for file in (cache / "models--a--folder" / "snapshots" / ("c" * 40)).iterdir()] == ["extra.bin"]


def test_rm_asks_and_the_bundled_model_stays(
    cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(cache, REPO, {f"{STEM}-Q4_K_M.gguf": weights}) / f"{STEM}-Q4_K_M.gguf"
    assert command(monkeypatch, "rm", "r1-tiny", "--yes") == 1 and STUDENT.exists()
    assert "comes with localr1 and is not removed" in capsys.readouterr().err
    assert command(monkeypatch, "rm", "r1:1.5b") == 1 and path.exists()
    assert str(path) in (said := capsys.readouterr().err) and "nothing was removed" in said
    monkeypatch.setattr(pulling, "asked", lambda question: True)
    assert command(monkeypatch, "rm", "r1:1.5b") == 0 and not path.exists()
    assert command(monkeypatch, "rm", "r1:1.5b", "--yes") == 1
    assert "no model called 'r1:1.5b' is here" in capsys.readouterr().err
    converted = paths.cache() / "converted" / "thing-Q8_0.gguf"
    converted.parent.mkdir(parents=True, exist_ok=True)
    converted.write_bytes(weights)
    assert command(monkeypatch, "rm", "thing-Q8_0", "--yes") == 0 and not converted.exists()


def test_show_reads_headers(cache: Path, student_gguf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(ref: str | Path) -> dict[str, object]:
        assert command(monkeypatch, "show", str(ref), "--json") == 0
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    gguf, folder, name = shown(student_gguf), shown(STUDENT), shown("r1-tiny")
    assert gguf["architecture"] == folder["architecture"] == "qwen2" and gguf["context"] == folder["context"] == name["context"] == 4096
    assert gguf["parameters"] == folder["parameters"] == 3_295_616 or gguf["parameters"] == folder["parameters"]
    assert gguf["chat_template"] is folder["chat_template"] is True and folder["licence"] == "mit"
    assert gguf["tensor_formats"]["Q8_0"] > 20 and folder["tensor_formats"] == {"BF16": sum(gguf["tensor_formats"].values())}  # type: ignore
    assert 8.4 < gguf["bits_per_weight"] < 9 and folder["bits_per_weight"] == 16  # type: ignore[operator]
    assert gguf["fit"] is None
    assert command(monkeypatch, "show", str(student_gguf)) == 0
    assert "3." in (said := capsys.readouterr().out) and "bits per weight" in said and "qwen2" in said
    assert command(monkeypatch, "show", "nothing-of-the-kind") == 1
    assert "no model called 'nothing-of-the-kind' is here" in capsys.readouterr().err


def test_show_tells_a_fitted_plan_and_mlx_packing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    note = {"budget_bytes": 2_000_000, "expected_kl": 0.125, "basis": "x", "tensors": {}}
    config = {"model_type": "qwen2", "quantization": {"group_size": 64, "bits": 4}, "localr1_fit": note, "max_position_embeddings": 512}
    packed = {
        "a.weight": np.zeros((8, 128 // 8), np.uint32),
        "a.scales": np.zeros((8, 2), np.float16),
        "a.biases": np.zeros((8, 2), np.float16),
    }
    folder = tmp_path / "DeepSeek-R1-Distill-Llama-8B-4bit"
    folder.mkdir()
    save_file({**packed, "norm.weight": np.zeros(128, np.float16)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    facts = model_facts.read_facts(folder)
    assert (facts.form, facts.quant, facts.parameters) == ("mlx", "4bit", 8 * 128 + 128)
    assert model_facts.title(folder.name, facts) == "R1-Distill, base Llama-3.1-8B, 4bit"
    assert command(monkeypatch, "show", str(folder)) == 0
    assert "by localr1 quantize --fit, to 2.0 MB, expected KL divergence 0.125" in capsys.readouterr().out


def test_parts_count_together(student_gguf: Path, tmp_path: Path) -> None:
    whole = model_facts.read_facts(student_gguf)
    one, two = (tmp_path / f"m-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2))
    one.write_bytes(student_gguf.read_bytes())
    with pytest.raises(model_facts.ModelFileError, match="parts of this model are missing beside it"):
        model_facts.read_facts(one)
    two.write_bytes(student_gguf.read_bytes())
    assert model_facts.read_facts(one).parameters == 2 * whole.parameters


def test_what_files_say_is_made_safe(
    cache: Path, weights: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(cache, "a/\x1b[31mred", {"m-Q4_K_M.gguf": weights, "\x1b[2Jx-Q8_0.gguf": weights[:100]})
    assert command(monkeypatch, "list") == 0
    assert command(monkeypatch, "show", "a/\x1b[31mred:Q4_K_M") == 0
    assert command(monkeypatch, "list", "--json") == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "␛[31mred" in said.out


def test_a_cache_that_cannot_be_read(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    real = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder == cache:
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert command(monkeypatch, "list") == 1
    assert "cannot be read (Permission denied); change its permissions or set HF_HOME" in capsys.readouterr().err
    assert library.find("r1:7b") is None and library.default() is None
