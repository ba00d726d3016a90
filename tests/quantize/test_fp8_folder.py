"""`--to fp8`: a folder as DeepSeek publishes its own, complete or not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from goldens.checkpoints import KINDS, quantize_blocks

from backends.checkpoint import Checkpoint
from quantize.convert import Progress, convert
from quantize.errors import QuantizeError, TargetError, UnsupportedModel
from quantize.gguf_reader import read_gguf_header

FP8 = ml_dtypes.float8_e4m3fn
ROOT = Path(__file__).resolve().parents[2]

# The matrices that the published FP8 checkpoint has in FP8, by the end of their names, and V2-Lite's and the dense models' own.
IN_FP8 = {
    "deepseek_v3": ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "deepseek_v2-lite": ("q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
IN_FP8 |= {"llama": IN_FP8["qwen2"], "qwen3": IN_FP8["qwen2"]}


def read(folder: Path) -> dict[str, np.ndarray]:
    with Checkpoint.open(folder) as checkpoint:
        return {name: checkpoint.read(name) for name in checkpoint.names()}


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix in (".part", ".old")]


@pytest.mark.parametrize("kind", list(IN_FP8))
def test_every_tensor(make_golden, tmp_path, kind):
    """Codes and scales as the goldens' own quantizer computes them, block by block; everything else bit for bit."""
    wide = dict(hidden_size=192, intermediate_size=288) if kind.startswith("deepseek") else dict(hidden_size=256, intermediate_size=704)
    made = make_golden(kind, **wide)
    report = convert(made.folder, tmp_path / "fp8", "fp8")
    found = read(tmp_path / "fp8")
    for name, weights in made.tensors.items():
        if name.rsplit(".", 2)[-2] in IN_FP8[kind] and name.endswith(".weight"):
            codes, scales = quantize_blocks(weights.astype(np.float32))
            assert found[name].dtype == FP8 and found[name].tobytes() == codes.tobytes(), name
            scale = found.pop(name + "_scale_inv")
            assert scale.dtype == np.float32 and scale.shape == scales.shape and scale.tobytes() == scales.tobytes(), name
        else:
            assert found[name].dtype == weights.dtype and found[name].tobytes() == weights.tobytes(), name
    assert found.keys() == made.tensors.keys()
    assert report.parameters == sum(weights.size for weights in made.tensors.values())
    assert (report.format, report.target) == ("FP8", tmp_path / "fp8")


def test_config_and_small_files(make_golden, tmp_path):
    made = make_golden("deepseek_v3")
    small = {"README.md": "# A card", "chat_template.jinja": "{{ messages }}", "generation_config.json": "{}", "modeling.py": "pass"}
    for name, content in (small | {"old.bin": "x", "pytorch_model.bin.index.json": "{}", "m.gguf": "x"}).items():
        (made.folder / name).write_text(content)
    (made.folder / "figures").mkdir()
    convert(made.folder, tmp_path / "fp8", "FP8")
    assert json.loads((tmp_path / "fp8" / "config.json").read_text()) == made.config | dict(
        quantization_config=dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128])
    )
    copied = {path.name for path in (tmp_path / "fp8").iterdir()} - {"config.json", "model.safetensors"}
    assert copied == small.keys() | {"tokenizer.json", "tokenizer_config.json"}
    for name in copied:
        assert (tmp_path / "fp8" / name).read_bytes() == (made.folder / name).read_bytes()


def test_the_reference_computes_with_it_what_llama_cpp_does(make_golden, exact_llama_cpp, tmp_path):
    from backends.reference.backend import ReferenceBackend

    convert(make_golden("deepseek_v3", vocab_size=320).folder, tmp_path / "fp8", "fp8")
    convert(tmp_path / "fp8", tmp_path / "m.gguf", "F32")
    tokens = np.random.default_rng(0).integers(0, 320, 30)
    with ReferenceBackend(tmp_path / "fp8", 64) as reference:
        np.testing.assert_allclose(exact_llama_cpp(tmp_path / "m.gguf", tokens), reference.logits(tokens.tolist()), rtol=0, atol=5e-4)


def test_shards(make_golden, tmp_path, monkeypatch):
    made = make_golden("deepseek_v3")
    convert(made.folder, tmp_path / "whole", "fp8")
    monkeypatch.setattr("quantize.safetensors_folder.SHARD_BYTES", 100_000)
    convert(made.folder, tmp_path / "cut", "fp8")
    whole, cut = read(tmp_path / "whole"), read(tmp_path / "cut")
    assert {name: w.tobytes() for name, w in whole.items()} == {name: w.tobytes() for name, w in cut.items()}
    files = sorted(path.name for path in (tmp_path / "cut").glob("*.safetensors"))
    assert files == [f"model-{i + 1:05d}-of-{len(files):05d}.safetensors" for i in range(len(files))] and len(files) > 2
    assert all((tmp_path / "cut" / file).stat().st_size < 110_000 for file in files)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == cut.keys() and index["metadata"]["total_size"] == sum(w.nbytes for w in cut.values())


def test_other_programs_can_map_it(make_golden, tmp_path):
    """The header is a multiple of 8 bytes, and every tensor begins at a multiple of its element's size."""
    convert(make_golden("deepseek_v3").folder, tmp_path / "fp8", "fp8")
    raw = (tmp_path / "fp8" / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    header = json.loads(raw[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    size = {"F32": 4, "BF16": 2, "F8_E4M3": 1}
    assert all(entry["data_offsets"][0] % size[entry["dtype"]] == 0 for entry in header.values())


def test_pieces_are_put_together(make_golden, tmp_path, monkeypatch):
    made = make_golden("qwen2", hidden_size=256, intermediate_size=704)
    convert(made.folder, tmp_path / "whole", "fp8")
    monkeypatch.setattr("quantize.formats.PIECE_ELEMENTS", 1)  # pieces of one row of blocks
    convert(made.folder, tmp_path / "pieces", "fp8")
    assert (tmp_path / "pieces" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_from_there_to_gguf(make_golden, tmp_path):
    convert(make_golden("deepseek_v2-lite").folder, tmp_path / "fp8", "fp8")
    convert(tmp_path / "fp8", tmp_path / "m.gguf", "Q8_0")
    assert read_gguf_header(tmp_path / "m.gguf").metadata["deepseek2.expert_count"] == 16


def test_what_llama_cpp_cannot_compute_can_be_fp8(make_golden, tmp_path):
    """DeepSeek-V2's groups are no obstacle here."""
    assert KINDS["deepseek_v2"].config["topk_method"] == "group_limited_greedy"
    convert(make_golden("deepseek_v2").folder, tmp_path / "fp8", "fp8")


def test_progress_counts_up_to_the_whole(make_golden, tmp_path):
    seen: list[Progress] = []
    convert(make_golden("qwen2").folder, tmp_path / "fp8", "fp8", on_progress=seen.append)
    assert [p.done_tensors for p in seen] == list(range(1, seen[-1].total_tensors + 1))
    assert seen[-1].done_bytes == seen[-1].total_bytes == sum(w.nbytes for w in read(tmp_path / "fp8").values())


def test_fp8_is_not_quantized_again(make_golden, tmp_path):
    with pytest.raises(UnsupportedModel, match="is in block FP8 already; copy the folder"):
        convert(make_golden("deepseek_v3-fp8").folder, tmp_path / "fp8", "fp8")


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [(np.float32, np.nan, "not a number"), (ml_dtypes.bfloat16, np.inf, "infinite")],
)
def test_weights_that_have_no_codes(make_golden, rewrite, tmp_path, dtype, value, message):
    made = make_golden("qwen2")
    name = "model.layers.1.mlp.up_proj.weight"
    made.tensors[name] = np.zeros(made.tensors[name].shape, dtype)
    made.tensors[name][3, 5] = value
    rewrite(made.folder, made.tensors)
    with pytest.raises(QuantizeError, match=rf"tensor '{name}' holds .*{message}"):
        convert(made.folder, tmp_path / "fp8", "fp8")
    assert not list(tmp_path.glob("fp8*"))


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_stop_in_the_middle_leaves_nothing(make_golden, tmp_path, failure):
    def stop(progress: Progress) -> None:
        if progress.done_tensors == 9:
            raise failure

    made = make_golden("qwen2")
    with pytest.raises(failure):
        convert(made.folder, tmp_path / "fp8", "fp8", on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["qwen2"]


def test_targets_that_are_refused(make_golden, tmp_path, monkeypatch):
    made = make_golden("qwen2")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(TargetError, match="no such folder"):
        convert(made.folder, tmp_path / "none" / "fp8", "fp8")
    for force in (False, True):
        with pytest.raises(TargetError, match="is a file; give the name of a folder"):
            convert(made.folder, tmp_path / "file", "fp8", force=force)
    monkeypatch.chdir(made.folder)
    for folder in (tmp_path, made.folder, Path(), Path("/"), Path("..")):
        with pytest.raises(TargetError, match="exists already"):
            convert(made.folder, folder, "fp8")
        with pytest.raises(TargetError, match="is not a checkpoint in block FP8 or MLX's formats, and is not replaced"):
            convert(made.folder, folder, "fp8", force=True)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(TargetError, match="1,000 are free"):
        convert(made.folder, tmp_path / "fp8", "fp8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "qwen2"]


def test_force_replaces_an_fp8_checkpoint_and_nothing_that_holds_more(make_golden, tmp_path):
    made, target = make_golden("qwen2"), tmp_path / "fp8"
    target.mkdir()
    convert(made.folder, target, "fp8", force=True)  # an empty folder
    (target / "notes.txt").write_text("mine")
    convert(made.folder, target, "fp8", force=True)
    assert not (target / "notes.txt").exists() and not parts(tmp_path)
    for add in ("model-Q4_K_M.gguf", "adapter.safetensors"):
        (target / add).write_bytes(b"mine")
        with pytest.raises(TargetError, match="is not replaced"):
            convert(made.folder, target, "fp8", force=True)
        assert (target / add).read_bytes() == b"mine"
        (target / add).unlink()
    (target / "more").mkdir()
    with pytest.raises(TargetError, match="is not replaced"):
        convert(made.folder, target, "fp8", force=True)


def test_a_dated_backup_beside_the_target_stays(make_golden, tmp_path):
    """Its date is eight hexadecimal digits, too."""
    made, target = make_golden("qwen2"), tmp_path / "fp8"
    backup = tmp_path / "fp8.20250101.old"
    backup.mkdir()
    (tmp_path / "fp8.20250101.part").write_text("mine")
    convert(made.folder, target, "fp8")
    convert(made.folder, target, "fp8", force=True)
    assert backup.is_dir() and (tmp_path / "fp8.20250101.part").read_text() == "mine"


def test_a_stop_keeps_the_folder_that_was_to_be_replaced(make_golden, tmp_path, monkeypatch):
    made, target = make_golden("qwen2"), tmp_path / "fp8"
    convert(made.folder, target, "fp8")
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(made.folder, target, "fp8", on_progress=stop, force=True)
    real = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.suffix == ".part":
            raise OSError(5, "Input/output error")
        return real(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(TargetError, match=r"cannot be written \(Input/output error\)"):
            convert(made.folder, target, "fp8", force=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before and not parts(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_conversion_left_is_removed(make_golden, tmp_path):
    """By the next one to the same target, unless a process holds it."""
    made, target = make_golden("qwen2"), tmp_path / "fp8"
    code = (
        "import os, signal, sys; from pathlib import Path; from quantize.convert import convert\n"
        "convert(Path(sys.argv[1]), Path(sys.argv[2]), 'fp8', on_progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, made.folder, target], cwd=ROOT, check=False)
    assert done.returncode == -9 and len(parts(tmp_path)) == 1
    inner: list[Progress] = []

    def convert_again(_: Progress) -> None:
        if not inner:
            convert(made.folder, target, "fp8", on_progress=inner.append)
            shutil.rmtree(target)

    convert(made.folder, target, "fp8", on_progress=convert_again)
    assert inner and not parts(tmp_path) and read(target)


@pytest.mark.skipif(not hasattr(os, "mkfifo") or os.geteuid() == 0, reason="needs files that cannot be read")
def test_a_small_file_that_cannot_be_read(make_golden, tmp_path):
    made = make_golden("qwen2")
    (made.folder / "README.md").touch(mode=0)
    with pytest.raises(TargetError, match=r"README\.md: cannot be copied"):
        convert(made.folder, tmp_path / "fp8", "fp8")


def test_the_command_line(make_golden, tmp_path):
    made = make_golden("qwen2")
    command = [sys.executable, "-m", "localr1.cli", "quantize", made.folder, tmp_path / "fp8", "--to", "fp8", "--no-eval"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "bits per weight (FP8)" in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1 and "exists already; choose another name or pass --force" in again.stderr
    assert subprocess.run([*command, "--force"], cwd=ROOT, capture_output=True, check=False).returncode == 0
