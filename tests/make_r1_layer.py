"""Write a checkpoint of one MoE layer with DeepSeek-R1's true dimensions in block FP8: 11.5 GB of random weights, sharded.

    python tests/make_r1_layer.py FOLDER

Only the vocabulary is smaller (512), so that the layer is what is measured. `tests/backends/reference/test_r1_layer.py` uses it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from backends.reference.config import parse_config
from backends.reference.shapes import tensor_shapes
from backends.reference.weights import NOT_FP8, SCALE

SHARD_BYTES = 4 << 30
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
    "ep_size": 1, "first_k_dense_replace": 0, "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.02,
    "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 1, "num_key_value_heads": 128, "num_nextn_predict_layers": 0,
    "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096, "type": "yarn",
    },
    "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": False, "topk_group": 4,
    "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "use_cache": True, "v_head_dim": 128, "vocab_size": 512,
}  # fmt: skip


def make(folder: Path) -> None:
    """Write the folder; a finished one is left alone."""
    if (folder / "config.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, 64 << 20, np.uint8)
    noise[(noise & 0x7F) >= 0x70] &= 0x8F  # neither NaN nor a few weights that outweigh all others
    shards: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    size = 0
    for name, dtype, shape in _tensors():
        nbytes = int(np.prod(shape)) * (1 if dtype == "F8_E4M3" else 2 if dtype == "BF16" else 4)
        if size + nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = (dtype, shape)
        size += nbytes
    where = {}
    for i, shard in enumerate(shards, 1):
        file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        where |= dict.fromkeys(shard, file)
        _write_shard(folder / file, shard, noise, random)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))


def _tensors() -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for name, shape in tensor_shapes(parse_config(CONFIG)).items():
        if len(shape) == 2 and not name.endswith(NOT_FP8):
            yield name, "F8_E4M3", shape
            yield name + SCALE, "F32", (-(-shape[0] // 128), -(-shape[1] // 128))
        else:
            yield name, "F32" if "bias" in name else "BF16", shape


def _write_shard(path: Path, tensors: dict[str, tuple[str, tuple[int, ...]]], noise: np.ndarray, random: np.random.Generator) -> None:
    header, at = {}, 0
    for name, (dtype, shape) in tensors.items():
        nbytes = int(np.prod(shape)) * (1 if dtype == "F8_E4M3" else 2 if dtype == "BF16" else 4)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        at += nbytes
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (dtype, shape) in tensors.items():
            count = int(np.prod(shape))
            if dtype == "F8_E4M3":
                start = int(random.integers(len(noise) - count)) if count < len(noise) else 0
                file.write(np.resize(noise[start : start + count], count).data)
            elif dtype == "BF16":
                centre = 1.0 if "norm" in name else 0.0
                file.write(random.normal(centre, 0.02, count).astype(ml_dtypes.bfloat16).view(np.uint8).data)
            else:  # scales and the router's bias
                low, high = (1e-4, 2e-4) if name.endswith(SCALE) else (-0.1, 0.1)
                file.write(random.uniform(low, high, count).astype(np.float32).data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]))
