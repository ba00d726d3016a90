"""A training checkpoint -> the published folder format.

python export.py TRAIN.pt ../r1-tiny
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from model import StudentConfig
from safetensors.torch import save_file
from tokenizer import ADDED, BOS, EOS, VOCAB_SIZE, tokenizer_json, write_tokenizer


def export(checkpoint: Path, folder: Path) -> None:
    """Write config.json, generation_config.json, model.safetensors (BF16) and the tokenizer's files to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["student"]
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("model.layers."))
    ids = {text: len(tokenizer_json()["model"]["vocab"]) + i for i, text in enumerate(ADDED)}
    assert max(ids.values()) < VOCAB_SIZE
    config = StudentConfig(num_hidden_layers=layers).published(ids[BOS], ids[EOS])
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = dict(bos_token_id=ids[BOS], eos_token_id=ids[EOS], do_sample=True, temperature=0.6, top_p=0.95)
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    write_tokenizer(folder)
    tensors = {name: t.to(torch.bfloat16).contiguous() for name, t in state.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    export(args.checkpoint, args.folder)
