"""Which engine runs what: the rules as a table over machines and models, and files that are not what their names say."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from machines import CUDA, INTEL_MAC, LINUX, LLAMACPP, M1_8GB, M3_PRO_36GB, NO_LLAMACPP
from model_shapes import dense, write_folder, write_gguf

from backends.base import ModelFileError
from backends.dispatch import RULES, ImpossibleChoice, ModelFile, choose, describe, markdown
from backends.hardware import Engine, Machine
from backends.model_file import Latent, Shape

README = Path(__file__).resolve().parents[2] / "README.md"

SHAPE_8B = Shape(32, 4096, 14336, 32, 8, 128, 128, 128256, 131072)
SHAPE_7B = Shape(28, 3584, 18944, 28, 4, 128, 128, 152064, 131072)
SHAPE_R1 = Shape(61, 7168, 18432, 128, 128, 192, 128, 129280, 163840, Latent(512, 64, 128, 128), 8, 2048)

GGUF = ModelFile(
    Path("q.gguf"), "gguf", "qwen2", "Q4_K_M", 1_117_000_000, 1_777_000_000, Shape(28, 1536, 8960, 12, 2, 128, 128, 151936, 131072)
)
MLX_8B = ModelFile(Path("8b-4bit"), "mlx", "llama", "4-bit", 4_517_000_000, 0, SHAPE_8B)
BF16_7B = ModelFile(Path("7b"), "safetensors", "qwen2", "BF16", 15_231_000_000, 7_616_000_000, SHAPE_7B)
R1 = ModelFile(Path("r1"), "safetensors", "deepseek_v3", "FP8", 688_000_000_000, 684_000_000_000, SHAPE_R1)
GEMMA = ModelFile(Path("gemma"), "safetensors", "gemma3", "BF16", 8_000_000_000, 4_000_000_000, None)

NO_MLX_MAC = replace(M3_PRO_36GB, mlx=Engine("", missing="mlx not installed; uv pip install mlx mlx-lm"))
MLX_LINUX = replace(LINUX, mlx=Engine("0.32.4", "cpu"))
BARE = replace(LINUX, llamacpp=NO_LLAMACPP)

# machine, model, asked -> backend, conversion, a piece of the reason
CHOICES: list[tuple[Machine, ModelFile, str, str, str | None, str]] = [
    (M1_8GB, GGUF, "auto", "gguf", None, "runs on the Apple M1 (Metal)"),
    (M3_PRO_36GB, GGUF, "auto", "gguf", None, "as they are"),
    (INTEL_MAC, GGUF, "auto", "gguf", None, "runs on the CPU"),
    (LINUX, GGUF, "gguf", "gguf", None, "runs on the CPU"),
    (CUDA, GGUF, "auto", "gguf", None, "NVIDIA GeForce RTX 4070 (CUDA)"),
    (M1_8GB, MLX_8B, "auto", "mlx", None, "GPU of the Apple M1"),
    (M3_PRO_36GB, MLX_8B, "mlx", "mlx", None, "GPU of the Apple M3 Pro"),
    (MLX_LINUX, MLX_8B, "auto", "mlx", None, "on the CPU, where MLX is slow"),
    (M3_PRO_36GB, BF16_7B, "auto", "mlx", None, "fast path on Apple chips"),
    (M1_8GB, BF16_7B, "auto", "gguf", "Q2_K", "made once in Q2_K"),  # 4.5 GB are free
    (M1_8GB, BF16_7B, "mlx", "mlx", None, "as they are"),  # as asked: the memory plan says that it does not fit
    (M3_PRO_36GB, BF16_7B, "gguf", "gguf", "Q8_0", "Metal"),
    (NO_MLX_MAC, BF16_7B, "auto", "gguf", "Q8_0", "made once in Q8_0"),
    (INTEL_MAC, BF16_7B, "auto", "gguf", "Q8_0", "runs on the CPU"),
    (LINUX, BF16_7B, "auto", "gguf", "Q8_0", "llama.cpp is the fast path here"),
    (MLX_LINUX, BF16_7B, "auto", "gguf", "Q8_0", "llama.cpp is the fast path here"),
    (LINUX, BF16_7B, "reference", "reference", None, "numpy"),
    (BARE, BF16_7B, "auto", "reference", None, "llama-cpp-python is not installed; python -m pip install llama-cpp-python"),
    (replace(BARE, mlx=MLX_LINUX.mlx), BF16_7B, "auto", "mlx", None, "where MLX is slow"),
    (M3_PRO_36GB, R1, "auto", "gguf", "Q2_K", "made once in Q2_K"),  # which the memory plan refuses
    (LINUX, R1, "reference", "reference", None, "numpy"),
]

# machine, model, asked -> pieces of the error
IMPOSSIBLE: list[tuple[Machine, ModelFile, str, tuple[str, ...]]] = [
    (M3_PRO_36GB, GGUF, "mlx", ("q.gguf", "--backend mlx", "MLX reads no GGUF files; use --backend gguf")),
    (LINUX, GGUF, "reference", ("--backend reference", "use --backend gguf")),
    (BARE, GGUF, "auto", ("only llama.cpp reads GGUF files", "python -m pip install llama-cpp-python")),
    (LINUX, MLX_8B, "auto", ("MLX folder (llama, 4-bit)", "mlx and mlx-lm not installed", "or take a GGUF file")),
    (INTEL_MAC, MLX_8B, "auto", ("MLX needs a Mac with an Apple chip", "take a GGUF file")),
    (M3_PRO_36GB, MLX_8B, "gguf", ("llama.cpp does not read MLX's format", "--backend mlx")),
    (M3_PRO_36GB, MLX_8B, "reference", ("the original folder",)),
    (LINUX, BF16_7B, "mlx", ("mlx and mlx-lm not installed",)),
    (INTEL_MAC, BF16_7B, "mlx", ("MLX needs a Mac with an Apple chip",)),
    (BARE, BF16_7B, "gguf", ("llama-cpp-python is not installed",)),
    (LINUX, GEMMA, "auto", ("gemma3", "known are deepseek_v3", "take a GGUF file")),
]


@pytest.mark.parametrize(("machine", "model", "asked", "backend", "convert", "piece"), CHOICES)
def test_choices(machine: Machine, model: ModelFile, asked: str, backend: str, convert: str | None, piece: str) -> None:
    made = choose(machine, model, asked)
    assert (made.backend, made.convert) == (backend, convert)
    assert piece in made.reason


@pytest.mark.parametrize(("machine", "model", "asked", "pieces"), IMPOSSIBLE)
def test_impossible_choices_explain_themselves(machine: Machine, model: ModelFile, asked: str, pieces: tuple[str, ...]) -> None:
    with pytest.raises(ImpossibleChoice) as raised:
        choose(machine, model, asked)
    for piece in pieces:
        assert piece in str(raised.value)


@pytest.mark.parametrize("asked", ["auto", "gguf", "mlx", "reference"])
@pytest.mark.parametrize("model", [GGUF, MLX_8B, BF16_7B, R1, GEMMA], ids=lambda m: m.path.name)
def test_every_case_has_a_rule_and_every_rule_a_case(model: ModelFile, asked: str) -> None:
    """Whatever is here or missing, someone answers."""
    for machine in (M1_8GB, M3_PRO_36GB, INTEL_MAC, LINUX, CUDA, BARE, MLX_LINUX, NO_MLX_MAC):
        try:
            choose(machine, model, asked)
        except ImpossibleChoice as error:
            assert "{" not in str(error)
    used = {(rule.kind, a) for rule in RULES for a in rule.asked}
    assert (model.kind, asked) in used


def test_the_readme_shows_the_rules() -> None:
    shown = re.search(r"\| model \| `--backend` \|.*?(?=\n\n|\Z)", README.read_text(encoding="utf-8"), re.DOTALL)
    if shown is None:
        pytest.skip("the README has no table of backends yet: print(backends.dispatch.markdown())")
    assert shown[0].strip() == markdown()


# ------------------------------------------------------------------------------------------- describe()


def test_a_gguf_file(tmp_path: Path) -> None:
    shape = dense("qwen2", 28, 1536, 8960, 12, 2, 151936, form="Q4_K", file_type=15)
    found = describe(write_gguf(tmp_path / "model.gguf", *shape))
    assert (found.kind, found.architecture, found.quantization) == ("gguf", "qwen2", "Q4_K_M")
    assert found.parameters == pytest.approx(1.777e9, rel=1e-3) and found.bytes == pytest.approx(found.parameters * 4.5 / 8, rel=1e-3)
    assert found.shape == GGUF.shape


def test_the_student_as_the_engine_sees_it(student_gguf: Path) -> None:
    found = describe(student_gguf)
    assert (found.quantization, found.parameters) == ("Q8_0", 3_313_920)
    assert found.shape is not None and (found.shape.vocabulary, found.shape.context) == (320, 4096)


def test_folders(tmp_path: Path) -> None:
    config = {"model_type": "llama", "num_hidden_layers": 32}
    mlx = write_folder(
        tmp_path / "mlx",
        config | {"quantization": {"group_size": 64, "bits": 4}},
        {"a.weight": ((8, 4), "U32"), "a.scales": ((8, 1), "BF16")},
    )
    assert (describe(mlx).kind, describe(mlx).quantization, describe(mlx).parameters) == ("mlx", "4-bit", 0)
    plain = describe(write_folder(tmp_path / "plain", config, {"a": ((8, 4), "BF16"), "b": ((4,), "F32")}))
    assert (plain.kind, plain.quantization, plain.parameters, plain.bytes) == ("safetensors", "BF16", 36, 80)
    strange = describe(write_folder(tmp_path / "strange", {"model_type": "\x1b[2J" * 99}, {"a": ((8, 4), "BF16")}))
    assert strange.architecture.isprintable() and len(strange.architecture) < 50
    fp8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    blocks = {"a.weight": ((256, 128), "F8_E4M3"), "a.weight_scale_inv": ((2, 1), "F32")}
    r1 = describe(write_folder(tmp_path / "r1", {"model_type": "deepseek_v3"} | fp8, blocks))
    assert (r1.kind, r1.architecture, r1.quantization, r1.parameters) == ("safetensors", "deepseek_v3", "FP8", 256 * 128)


def test_a_name_does_not_decide(tmp_path: Path) -> None:
    shape = dense("qwen2", 1, 64, 96, 1, 1, 320, form="F32", file_type=0)
    assert describe(write_gguf(tmp_path / "model.safetensors", *shape)).kind == "gguf"

    folder = write_folder(tmp_path / "folder", {"model_type": "qwen2"}, {"a": ((8, 4), "BF16")})
    write_gguf(folder / "model.safetensors", *shape)
    with pytest.raises(ModelFileError, match=r"is a GGUF file with the name of a safetensors file; rename it to model\.gguf"):
        describe(folder)

    write_folder(tmp_path / "real", {"model_type": "qwen2"}, {"a": ((8, 4), "BF16")})
    (tmp_path / "real" / "model.safetensors").rename(tmp_path / "w.gguf")
    with pytest.raises(ModelFileError, match=r"safetensors file with the name of a GGUF file; name the checkpoint folder"):
        describe(tmp_path / "w.gguf")


def test_half_a_download(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", *dense("qwen2", 2, 64, 96, 1, 1, 320, form="F32", file_type=0))
    whole = path.read_bytes()
    for size in (len(whole) - 100, 2000, 300, 20):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match=r"truncated|damaged"):
            describe(path)
    folder = write_folder(tmp_path / "f", {"model_type": "qwen2"}, {"a": ((64, 64), "F32")})
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(ModelFileError, match="truncated"):
        describe(folder)


def test_a_split_model_is_counted_whole(tmp_path: Path) -> None:
    shape = dense("qwen2", 1, 64, 96, 1, 1, 320, form="F32", file_type=0)
    parts = [write_gguf(tmp_path / f"m-0000{n}-of-00003.gguf", *shape) for n in (1, 2, 3)]
    assert describe(parts[0]).bytes == 3 * describe(write_gguf(tmp_path / "whole.gguf", *shape)).bytes
    with pytest.raises(ModelFileError, match=r"part 2 of 3 of a model; name the first, m-00001-of-00003\.gguf"):
        describe(parts[1])
    parts[2].unlink()
    with pytest.raises(ModelFileError, match=r"m-00003-of-00003\.gguf: missing"):
        describe(parts[0])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.gguf", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("a.gguf", b"<!doctype html>", "no model file"),
        ("a.bin", b"PK\x03\x04", "pickle"),
        ("a.gguf", b"", "no model file"),
        ("a.gguf", b"GGUF" + bytes(3), "truncated"),
        ("a.gguf", b"GGUF" + b"\xff" * 60, "version"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=said):
        describe(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.gguf")
    with pytest.raises(ModelFileError, match="no regular file"):
        describe(tmp_path / "m.gguf")


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such file or folder"):
        describe(tmp_path / "nothing")
    (tmp_path / "ggufs").mkdir()
    (tmp_path / "ggufs" / "one.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelFileError, match=r"folder of GGUF files; name one of them, for example .*one\.gguf"):
        describe(tmp_path / "ggufs")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (tmp_path / "page" / "model.safetensors").write_text("<html>Log in</html>")
    with pytest.raises(ModelFileError, match="is a web page"):
        describe(tmp_path / "page")


def test_an_engine_that_is_here_says_where_it_runs() -> None:
    assert LLAMACPP.here and not NO_LLAMACPP.here and not Engine("", missing="gone").here
