"""Stage 5, export: a training checkpoint -> the published folder format, BF16 for the student, FP8 blocks for the teacher.

python export.py student TRAIN.pt ../r1-tiny
python export.py teacher TRAIN.pt ../r1-tiny-teacher
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from student import StudentConfig
from teacher import TeacherConfig
from tokenizer import ADDED, BOS, EOS, VOCAB_SIZE, tokenizer_json, write_tokenizer
from torch import Tensor

from quantize.convert import convert


def student_folder(state: dict[str, Tensor], folder: Path) -> None:
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("model.layers."))
    _write(folder, StudentConfig(num_hidden_layers=layers), state)


def teacher_folder(state: dict[str, Tensor], folder: Path) -> None:
    """The MTP layer's embedding and head are copies of the main model's, as published; then the large matrices become block FP8."""
    config = TeacherConfig()
    mtp = f"model.layers.{config.num_hidden_layers}"
    copies = {f"{mtp}.embed_tokens.weight": "model.embed_tokens.weight", f"{mtp}.shared_head.head.weight": "lm_head.weight"}
    with tempfile.TemporaryDirectory() as temporary:
        wide = Path(temporary) / "bf16"
        _write(wide, config, state | {copy: state[name].clone() for copy, name in copies.items()})
        made = Path(temporary) / "fp8"
        convert(wide, made, "fp8")
        folder.mkdir(parents=True, exist_ok=True)
        for file in made.iterdir():  # beside the card and its pictures
            shutil.copyfile(file, folder / file.name)


def _write(folder: Path, config: StudentConfig | TeacherConfig, state: dict[str, Tensor]) -> None:
    """config.json, generation_config.json, model.safetensors (BF16, the routers' biases float32) and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {text: len(tokenizer_json()["model"]["vocab"]) + i for i, text in enumerate(ADDED)}
    assert max(ids.values()) < VOCAB_SIZE
    (folder / "config.json").write_text(json.dumps(config.published(ids[BOS], ids[EOS]), indent=2) + "\n")
    generation = dict(bos_token_id=ids[BOS], eos_token_id=ids[EOS], do_sample=True, temperature=0.6, top_p=0.95)
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    write_tokenizer(folder)
    tensors = {name: (t if name.endswith("e_score_correction_bias") else t.to(torch.bfloat16)).contiguous() for name, t in state.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["student", "teacher"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    weights = torch.load(args.checkpoint, map_location="cpu", weights_only=True)["model"]
    (student_folder if args.model == "student" else teacher_folder)(weights, args.folder)
