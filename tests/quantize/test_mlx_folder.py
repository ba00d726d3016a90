"""`--to mlx-*`: what mlx-lm's own conversion writes, byte for byte, and what it computes with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from goldens.checkpoints import quantize_blocks

from backends.checkpoint import Checkpoint
from quantize.convert import Progress, Report, convert
from quantize.errors import TargetError, UnsupportedModel
from quantize.mlx_formats import MLX_FORMATS, mlx_format

mx = pytest.importorskip("mlx.core", exc_type=ImportError)
pytest.importorskip("mlx_lm", exc_type=ImportError)

ROOT = Path(__file__).resolve().parents[2]
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
# Most rows are whole groups of 32, 64 and 128; latents and heads of DeepSeek models are too short for some.
WIDE = dict(hidden_size=128, intermediate_size=256)
MOE = WIDE | dict(moe_intermediate_size=128, kv_lora_rank=64, q_lora_rank=128, qk_nope_head_dim=32, v_head_dim=32)
SIZES = {
    "qwen2": WIDE, "qwen2-tied": WIDE, "llama": WIDE, "qwen3": WIDE, "deepseek_v2": MOE, "deepseek_v2-lite": MOE | dict(q_lora_rank=None),
    # mlx-lm knows an MTP layer only by the number 61
    "deepseek_v3": MOE | dict(num_nextn_predict_layers=0), "deepseek_v3-fp8": dict(num_nextn_predict_layers=0),
}  # fmt: skip
MIXED_MODES = [
    ("qwen2", "mlx-4bit"), ("qwen2-tied", "mlx-mxfp4"), ("llama", "mlx-3bit-g32"), ("llama", "mlx-mxfp8"), ("qwen3", "mlx-6bit-g128"),
    ("deepseek_v3", "mlx-mixed_3_6"), ("deepseek_v3-fp8", "mlx-8bit-g32"), ("deepseek_v2", "mlx-nvfp4"), ("deepseek_v2-lite", "mlx-2bit"),
]  # fmt: skip


@pytest.fixture
def make(make_golden) -> Callable[..., Any]:
    """A checkpoint with rows long enough to be quantized."""
    return lambda kind, **changes: make_golden(kind, **SIZES[kind] | changes)


@pytest.fixture
def mlx_lm(tmp_path) -> Callable[[Path, str], Path]:
    """mlx-lm's own conversion of a folder."""
    from mlx_lm.convert import convert as theirs

    def run(source: Path, name: str) -> Path:
        form, target = mlx_format(name), tmp_path / f"{source.name}-by-mlx-lm"
        recipe, packing = form.name.removeprefix("mlx-") if form.less else None, form.default
        theirs(
            str(source), str(target), quantize=True, q_group_size=packing.group, q_bits=packing.bits, q_mode=packing.mode,
            quant_predicate=recipe,
        )  # fmt: skip
        return target

    return run


def tensors(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with Checkpoint.open(folder) as checkpoint:
        return {name: (checkpoint.dtype(name), checkpoint.shape(name), checkpoint.read(name).tobytes()) for name in checkpoint.names()}


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def assert_same(ours: Path, theirs: Path, *but: str) -> None:
    """Tensors, index and card; and config.json, but for these keys."""
    a, b = tensors(ours), tensors(theirs)
    assert a.keys() == b.keys()
    assert [name for name in a if a[name] != b[name]] == []
    index = "model.safetensors.index.json"
    assert read_json(ours / index) == read_json(theirs / index)
    ours_config, theirs_config = ({k: v for k, v in read_json(x / "config.json").items() if k not in but} for x in (ours, theirs))
    assert ours_config == theirs_config and list(ours_config) == list(theirs_config)
    assert (ours / "README.md").read_bytes() == (theirs / "README.md").read_bytes()


def logits(folder: Path) -> np.ndarray:
    """Of a few tokens, as mlx-lm loads the folder and computes it."""
    from mlx_lm import load

    model, tokenizer = load(str(folder))
    assert tokenizer.encode("a")
    out = model(mx.array([[5, 7, 11, 13, 17, 19]])).astype(mx.float32)
    mx.eval(out)
    return np.array(out)


# ------------------------------------------------------------------------------------------------- equal to mlx-lm's own


@pytest.mark.parametrize(("kind", "name"), MIXED_MODES)
def test_every_byte_is_mlx_lms(make, mlx_lm, tmp_path, kind, name):
    made = make(kind)
    report = convert(made.folder, tmp_path / "ours", name)
    theirs = mlx_lm(made.folder, name)
    assert_same(tmp_path / "ours", theirs)
    assert report.format == name and report.parameters == read_json(theirs / "model.safetensors.index.json")["metadata"]["total_parameters"]
    fallen = [name for name, (dtype, shape, _) in tensors(theirs).items() if len(shape) > 1 and dtype not in ("U32", "U8")]
    fallen = [name for name in fallen if not name.endswith((".scales", ".biases", "mlp.gate.weight"))]
    assert sorted(name for name, _ in report.fallbacks) == sorted(fallen)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(SIZES))
@pytest.mark.parametrize("name", list(MLX_FORMATS))
def test_every_format_of_every_architecture(make, mlx_lm, tmp_path, kind, name):
    made = make(kind)
    convert(made.folder, tmp_path / "ours", name)
    assert_same(tmp_path / "ours", mlx_lm(made.folder, name))


@pytest.mark.parametrize("kind", ["qwen2", "deepseek_v3", "deepseek_v2"])
def test_mlx_lm_loads_it_and_computes_the_same(make, mlx_lm, tmp_path, kind):
    made = make(kind)
    convert(made.folder, tmp_path / "ours", "mlx-4bit-g32")
    found = logits(tmp_path / "ours")
    assert np.isfinite(found).all() and found.std() > 0.1
    assert (found == logits(mlx_lm(made.folder, "mlx-4bit-g32"))).all()


@pytest.mark.parametrize("stored", [np.float32, np.float16])
@pytest.mark.parametrize("wanted", ["float16", "bfloat16", None])
def test_weights_are_cast_as_config_says(make, mlx_lm, edit, rewrite, tmp_path, stored, wanted):
    """One dtype for all that mlx-lm casts, even where the weights have two."""
    made = make("deepseek_v3")
    casts = {name: w if "e_score" in name or "layers.1" in name else w.astype(stored) for name, w in made.tensors.items()}
    rewrite(made.folder, casts)
    edit(made.folder / "config.json", torch_dtype=wanted)
    convert(made.folder, tmp_path / "ours", "mlx-4bit-g32")
    assert_same(tmp_path / "ours", mlx_lm(made.folder, "mlx-4bit-g32"))


def test_shards_are_cut_where_mlx_lm_cuts(make, mlx_lm, tmp_path, monkeypatch):
    from mlx_lm import utils

    most, real = 30 << 10, utils.make_shards
    monkeypatch.setattr("quantize.mlx_folder.SHARD_BYTES", most)
    # its limit is in GiB: tensors that claim to be larger by as much
    claimed = type("Claimed", (), {"__init__": lambda self, array: setattr(self, "nbytes", array.nbytes * (1 << 30) // most)})

    def cut(weights: dict[str, Any]) -> list[dict[str, Any]]:
        return [{name: weights[name] for name in shard} for shard in real({k: claimed(v) for k, v in weights.items()}, 1)]

    monkeypatch.setattr(utils, "make_shards", cut)
    for kind in ("qwen2", "deepseek_v3"):
        made = make(kind)
        convert(made.folder, tmp_path / f"{kind}-ours", "mlx-4bit-g32")
        theirs = mlx_lm(made.folder, "mlx-4bit-g32")
        assert len(list(theirs.glob("*.safetensors"))) > 3
        assert_same(tmp_path / f"{kind}-ours", theirs)
        names = [sorted(path.name for path in folder.glob("*.safetensors")) for folder in (theirs, tmp_path / f"{kind}-ours")]
        assert names[0] == names[1]


def test_pieces_are_put_together(make, tmp_path, monkeypatch):
    made = make("deepseek_v3")
    convert(made.folder, tmp_path / "whole", "mlx-4bit-g32")
    monkeypatch.setattr("quantize.formats.PIECE_ELEMENTS", 900)
    convert(made.folder, tmp_path / "pieces", "mlx-4bit-g32")
    monkeypatch.setattr(mx, "default_device", lambda: mx.gpu)  # one thread at a time
    convert(made.folder, tmp_path / "turns", "mlx-4bit-g32")
    assert tensors(tmp_path / "whole") == tensors(tmp_path / "pieces") == tensors(tmp_path / "turns")


# ------------------------------------------------------------------------------------------------- where mlx-lm's own fails


def test_mtp_layers_are_left_out(make, tmp_path):
    """mlx-lm refuses them, but for one of number 61."""
    convert(make("deepseek_v3", name="without").folder, tmp_path / "a", "mlx-4bit-g32")
    made = make("deepseek_v3", name="with", num_nextn_predict_layers=1)
    assert "model.layers.3.eh_proj.weight" in made.tensors
    convert(made.folder, tmp_path / "b", "mlx-4bit-g32")
    assert tensors(tmp_path / "a") == tensors(tmp_path / "b")


@pytest.mark.parametrize("kind", ["qwen2", "deepseek_v2-lite"])
def test_block_fp8_of_other_architectures(make, mlx_lm, edit, rewrite, tmp_path, kind):
    """mlx-lm decodes it in deepseek_v3 only; the result is that of the same weights in BF16."""
    made = make(kind)
    coded, decoded = dict(made.tensors), dict(made.tensors)
    for name, weights in made.tensors.items():
        if name.endswith("_proj.weight"):
            codes, scale = quantize_blocks(weights.astype(np.float32))
            coded |= {name: codes, name + "_scale_inv": scale}
            spread = scale.repeat(128, 0).repeat(128, 1)[: codes.shape[0], : codes.shape[1]]
            decoded[name] = (codes.astype(np.float32) * spread).astype(ml_dtypes.bfloat16)
    rewrite(made.folder, decoded)
    theirs = mlx_lm(made.folder, "mlx-4bit-g32")
    rewrite(made.folder, coded)
    config = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128])
    edit(made.folder / "config.json", quantization_config=config)
    convert(made.folder, tmp_path / "ours", "mlx-4bit-g32")
    assert_same(tmp_path / "ours", theirs)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", dict(tie_word_embeddings=None)),  # mlx-lm's default is a tied model
        ("qwen2", dict(tie_word_embeddings=None, rope_theta=None)),  # ... and 1e6
        ("qwen3", dict(num_key_value_heads=2, rms_norm_eps=None, model_type=None)),
        ("deepseek_v3", dict(routed_scaling_factor=None, first_k_dense_replace=None, norm_topk_prob=None)),
        ("deepseek_v2-lite", dict(q_lora_rank=None, topk_method=None)),
    ],
)
def test_what_config_leaves_out_is_written_where_mlx_lm_assumes_otherwise(make, edit, tmp_path, kind, changes):
    full = {"first_k_dense_replace": 3, "num_hidden_layers": 4} if "first_k_dense_replace" in changes else {}
    made = make(kind, **full)
    convert(made.folder, tmp_path / "full", "mlx-8bit-g32")
    edit(made.folder / "config.json", **changes)
    convert(made.folder, tmp_path / "sparse", "mlx-8bit-g32")
    assert tensors(tmp_path / "full") == tensors(tmp_path / "sparse")
    assert (logits(tmp_path / "full") == logits(tmp_path / "sparse")).all()


@pytest.mark.parametrize("kind", ["llama", "qwen3", "deepseek_v3"])
def test_rope_where_transformers_5_keeps_it(make, edit, tmp_path, kind):
    made = make(kind)
    convert(made.folder, tmp_path / "before", "mlx-8bit-g32")
    old = dict(made.config["rope_scaling"])
    new = old | dict(rope_type=old.pop("type", None) or old["rope_type"], rope_theta=made.config["rope_theta"])
    new.pop("type", None)
    edit(made.folder / "config.json", rope_parameters=new, rope_scaling=None, rope_theta=None)
    convert(made.folder, tmp_path / "after", "mlx-8bit-g32")
    assert (logits(tmp_path / "before") == logits(tmp_path / "after")).all()


def test_a_head_beside_tied_embeddings_is_left_out(make, mlx_lm, rewrite, tmp_path):
    made = make("qwen2-tied")
    rewrite(made.folder, made.tensors | {"lm_head.weight": made.tensors["model.embed_tokens.weight"]})
    convert(made.folder, tmp_path / "ours", "mlx-4bit")
    assert "lm_head.weight" not in tensors(tmp_path / "ours")
    assert_same(tmp_path / "ours", mlx_lm(made.folder, "mlx-4bit"))


def test_small_files(make, mlx_lm, tmp_path):
    """The tokenizer's and other small files are copied as they are, config.json has the end of generation_config.json."""
    made = make("qwen2")
    small = {
        "generation_config.json": '{"eos_token_id": [2, 5]}',
        "modeling.py": "pass",
        "LICENSE": "MIT",
        "README.md": "---\nlanguage: fr\n---\n# A",
    }
    for name, content in small.items():
        (made.folder / name).write_text(content)
    convert(made.folder, tmp_path / "ours", "mlx-4bit")
    assert_same(tmp_path / "ours", mlx_lm(made.folder, "mlx-4bit"))
    assert read_json(tmp_path / "ours" / "config.json")["eos_token_id"] == [2, 5]
    for name in (*list(small)[:-1], "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "ours" / name).read_bytes() == (made.folder / name).read_bytes()


# ------------------------------------------------------------------------------------------------- whole or not there


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_stop_in_the_middle_leaves_nothing(make, tmp_path, failure):
    def stop(progress: Progress) -> None:
        if progress.done_tensors == 20:
            raise failure

    made = make("qwen2")
    with pytest.raises(failure):
        convert(made.folder, tmp_path / "ours", "mlx-4bit", on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["qwen2"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_conversion_leaves_no_folder_of_that_name(make, tmp_path):
    made, target = make("qwen2"), tmp_path / "ours"
    code = (
        "import os, signal, sys; from pathlib import Path; from quantize.convert import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), 'mlx-4bit', on_progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, made.folder, target], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL and not target.exists()
    convert(made.folder, target, "mlx-4bit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "qwen2"]


def test_force_replaces_an_mlx_folder(make, tmp_path, monkeypatch):
    made, target = make("qwen2"), tmp_path / "ours"
    convert(made.folder, target, "mlx-4bit")
    with pytest.raises(TargetError, match="exists already"):
        convert(made.folder, target, "mlx-8bit")
    convert(made.folder, target, "mlx-8bit", force=True)
    assert read_json(target / "config.json")["quantization"]["bits"] == 8
    with pytest.raises(TargetError, match="is not a checkpoint in block FP8 or MLX's formats, and is not replaced"):
        convert(made.folder, made.folder, "mlx-8bit", force=True)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(TargetError, match="1,000 are free"):
        convert(made.folder, tmp_path / "more", "mlx-4bit")


def test_an_mlx_folder_is_no_source(make, tmp_path):
    convert(make("qwen2").folder, tmp_path / "ours", "mlx-4bit")
    for name in ("Q8_0", "mlx-8bit", "fp8"):
        with pytest.raises(UnsupportedModel, match="of quantized weights, only block FP8"):
            convert(tmp_path / "ours", tmp_path / "again", name)


def test_progress_and_report(make, tmp_path):
    seen: list[Progress] = []
    report: Report = convert(make("llama").folder, tmp_path / "ours", "mlx-4bit", on_progress=seen.append)
    assert [p.done_tensors for p in seen] == list(range(1, seen[-1].total_tensors + 1))
    stored = sum(len(raw) for _, _, raw in tensors(tmp_path / "ours").values())
    assert seen[-1].done_bytes == seen[-1].total_bytes == stored
    assert report.bits_per_weight == pytest.approx(stored * 8 / report.parameters) and report.tensors == len(seen)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux gives it")
def test_memory_does_not_grow_with_the_checkpoint(make_checkpoint, tmp_path):
    """Two matrices of 55 MB become 16 MB each; what is held is a few pieces of 0.5 MB, and the scales of one matrix."""
    small = make_checkpoint(name="small")
    large = make_checkpoint(name="large", vocab_size=54000, hidden_size=512)
    code = (
        "import resource, sys; from pathlib import Path; from quantize.convert import convert\n"
        "for source in sys.argv[1:3]:\n"
        "    convert(Path(source), Path(source + '-mlx'), 'mlx-4bit-g32')\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, small.folder, large.folder], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | dict(OMP_NUM_THREADS="1"),
    )  # fmt: skip
    before, after = (int(line) for line in done.stdout.split())
    assert after - before < 60_000  # KiB, of 154,000 read and written


def test_the_command_line(make, tmp_path):
    made = make("qwen2")
    command = [sys.executable, "-m", "localr1.cli", "quantize", made.folder, tmp_path / "ours", "--to"]
    done = subprocess.run([*command, "mlx-4bit"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "bits per weight (mlx-4bit)" in done.stdout
    again = subprocess.run([*command, "mlx-9bit"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 2 and "unknown MLX format 'mlx-9bit'" in again.stderr
