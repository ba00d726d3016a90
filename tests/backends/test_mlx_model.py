"""Folders as mlx-lm's networks: every architecture and format computes what the reference does, and what cannot be run is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from goldens.checkpoints import KINDS, build, write_safetensors
from safetensors.numpy import save_file

from backends.base import Backend, Cancel, EngineError, ModelFileError, Sampling, Token
from backends.checkpoint import Checkpoint
from backends.reference.backend import ReferenceBackend
from backends.reference.config import parse_config
from backends.reference.model import Model
from backends.reference.weights import Weights
from localr1 import paths
from tests.backends.asked import ASK

pytest.importorskip("mlx.core", exc_type=ImportError)

from backends import mlx_model
from backends.mlx import MlxBackend
from backends.mlx_files import ModelFiles
from backends.mlx_model import Network, library

STUDENT = paths.assets() / "r1-tiny"
REFUSED = {"qwen3-odd"}  # biases that mlx-lm's qwen3 has not

# Two float32 implementations agree within 6e-5 on logits of size 10 (of DeepSeek-V3); 4e-5 is the most that was seen here.
LOGITS = 1e-4


@pytest.fixture(scope="module")
def four_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantize.convert import convert

    target = tmp_path_factory.mktemp("student") / "4bit"
    convert(STUDENT, target, "mlx-4bit")
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A golden checkpoint with the student's tokenizer, which its config has no use for."""
    built: dict[str, Path] = {}

    def made(kind: str) -> Path:
        if kind not in built:
            built[kind] = build(kind, tmp_path_factory.mktemp("mlx") / kind)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(STUDENT / name, built[kind])
        return built[kind]

    return made


def answer(backend: Backend) -> list[Token]:
    return [t for t in backend.stream(backend.encode(ASK), Sampling(temperature=0), Cancel()) if isinstance(t, Token)]


def scores(net: Network, ids: Sequence[int], cuts: Sequence[int]) -> np.ndarray:
    """Logits [T, V] of `ids`, computed in pieces that end at `cuts`."""
    cache, rows = net.new_cache(), []
    for begin, end in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        out = net.logits(net.hidden(net.mx.array([list(ids[begin:end])]), cache))
        net.mx.eval(out)
        rows.append(np.array(out[0]))
    return np.concatenate(rows)


def meaning(mx: Any, module: Any) -> Any:
    """A module's weights in float32, packed or not."""
    if not hasattr(module, "bits"):
        return module.weight.astype(mx.float32)
    biases = module.get("biases")
    return mx.dequantize(module.weight, module.scales, biases, module.group_size, module.bits, module.mode).astype(mx.float32)


# ------------------------------------------------------------------------------------------------- the architectures


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - REFUSED))
def test_every_architecture_computes_what_the_reference_does(folder, kind):
    """A prompt at once, then token by token. MTP layers, FP8 with partial blocks, YaRN's scales, groups of experts with negative scores."""
    checkpoint = Checkpoint.open(folder(kind))
    config = parse_config(checkpoint.config)
    ids = np.random.default_rng(7).integers(0, config.vocab_size, 48).tolist()
    model = Model(config, Weights(checkpoint, config, "off"))
    found = scores(Network(ModelFiles.open(folder(kind)), float32=True), ids, [30, *range(40, 48)])
    assert np.abs(found - model.logits(ids, model.new_cache())).max() < LOGITS


@pytest.mark.parametrize(
    "kind, to, name",
    [
        ("qwen2-tied", "mlx-4bit-g32", "4bit-g32"),
        ("llama", "mlx-mxfp4", "mxfp4"),
        ("qwen3", "mlx-8bit", "8bit-g64"),
        ("deepseek_v3", "mlx-mixed_3_6", "3bit-g64+6bit-g64"),
        ("deepseek_v2", "mlx-nvfp4", "nvfp4"),
    ],
)
def test_a_quantized_folder_computes_with_the_weights_that_its_codes_mean(folder, tmp_path, kind, to, name):
    from quantize.convert import convert

    convert(folder(kind), tmp_path / "q", to)
    packed, plain = (Network(ModelFiles.open(f), float32=True) for f in (tmp_path / "q", folder(kind)))
    assert packed.format == name and packed.parameters == plain.parameters
    modules = dict(plain._model.named_modules())
    for path, module in packed._model.named_modules():
        if hasattr(module, "bits"):
            modules[path].weight = meaning(packed.mx, module)
    ids = list(range(40))
    assert np.abs(scores(packed, ids, [32]) - scores(plain, ids, [32])).max() < LOGITS


def test_the_4_bit_student_says_what_the_reference_says_with_its_weights(four_bits, tmp_path):
    shutil.copytree(STUDENT, tmp_path / "plain")
    with MlxBackend(four_bits) as backend:
        tensors = {}
        for path, module in backend._net._model.named_modules():
            for part in ("weight", "bias"):
                if part in module:
                    tensors[f"{path}.{part}"] = np.array(meaning(backend._mx, module) if part == "weight" else module[part])
        write_safetensors(tmp_path / "plain" / "model.safetensors", tensors)
        with ReferenceBackend(tmp_path / "plain") as reference:
            ours, theirs = answer(backend), answer(reference)
        assert [t.id for t in ours] == [t.id for t in theirs] and len(ours) > 50
        assert [t.logprob for t in ours] == pytest.approx([t.logprob for t in theirs], abs=LOGITS)
        assert backend.info.format == "4bit-g64" and 4.5 < backend.info.bits_per_weight < 4.6


# -------------------------------------------------------------------------------------------------- what is refused


def copied(tmp_path: Path, source: Path = STUDENT, **config: Any) -> Path:
    target = tmp_path / "copy"
    shutil.copytree(source, target)
    (target / "config.json").write_text(json.dumps(json.loads((target / "config.json").read_text()) | config))
    return target


@pytest.mark.parametrize(
    "config, message",
    [
        ({"model_type": "gemma3"}, r"model_type is 'gemma3'; this backend runs .*qwen2"),
        ({"model_file": "evil.py"}, "model_file"),
        ({"vocab_size": 321}, r"\[320, 256\].*\[321, 256\]"),
        ({"num_hidden_layers": 3}, "not part of"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000"),
        ({"head_dim": 32}, "head_dim is 32, mlx-lm wants"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "quant_method is 'awq'"),
    ],
)
def test_a_config_that_cannot_be_run_is_one_clear_error(tmp_path, config, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        MlxBackend(copied(tmp_path, **config))
    assert "\n" not in str(caught.value)


def test_other_files_are_told_from_ours(tmp_path, folder):
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"\0" * 40)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "config.json").write_text("{}")
    (tmp_path / "p" / "model.bin").write_bytes(b"x")
    cut = copied(tmp_path)
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5_000_000])
    cases = {
        "m.gguf": "is a GGUF file.*--backend gguf",
        "": "no config.json but m.gguf",
        "none": "not a folder",
        "p": "pickle",
        "copy": "truncated",
    }
    for name, message in cases.items():
        with pytest.raises(ModelFileError, match=message):
            MlxBackend(tmp_path / name)
    with pytest.raises(ModelFileError, match="attention_bias is True, mlx-lm has no biases in qwen3"):
        MlxBackend(folder("qwen3-odd"))
    with pytest.raises(EngineError, match="choose 1 to 4,096"):
        MlxBackend(STUDENT, context=5000)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("lm_head.scales"), r"'lm_head\.(biases|weight)'"),
        (lambda t: t.update({"lm_head.scales": t["lm_head.scales"][:, :3]}), r"lm_head"),
        (lambda t: t.update({"extra.weight": t["lm_head.scales"]}), r"'extra\.weight' is not part of the model"),
        (lambda t: t.pop("model.norm.weight"), r"lacks tensor 'model\.norm\.weight'"),
        (lambda t: t.update({"model.norm.weight": np.full((256,), np.nan, np.float32)}), "weights are damaged"),
    ],
)
def test_a_damaged_mlx_folder_is_one_clear_error(four_bits, tmp_path, change, message):
    folder = copied(tmp_path, four_bits)
    with Checkpoint.open(folder) as checkpoint:
        tensors = {n: x if (x := checkpoint.read(n)).dtype.kind == "u" else x.astype(np.float32) for n in checkpoint.names()}
    change(tensors)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    with pytest.raises((ModelFileError, EngineError), match=message):
        with MlxBackend(folder) as backend:
            answer(backend)


@pytest.mark.parametrize("name", ["mlx.core", "mlx_lm"])
def test_a_missing_library_is_named_with_the_way_to_get_it(monkeypatch, name):
    for loaded in [m for m in sys.modules if m.split(".")[0] == "mlx_lm"]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(mlx_model, "library", library.__wrapped__)
    with pytest.raises(EngineError, match=r"cannot be used.*pip install"):
        MlxBackend(STUDENT)


def test_mlx_lms_networks_come_without_the_rest_of_it(monkeypatch):
    import resource

    for loaded in [m for m in sys.modules if m.split(".")[0] == "mlx_lm"]:
        monkeypatch.delitem(sys.modules, loaded)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    network, caches = library.__wrapped__("qwen2")
    assert network.Model and caches.make_prompt_cache
    assert not [m for m in sys.modules if m.split(".")[0] == "mlx_lm"]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limit
