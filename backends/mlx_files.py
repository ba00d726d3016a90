"""The files of a model folder on their way into one of mlx-lm's networks: what is refused, what config.json means to mlx-lm, the arrays.

Source: `load_model` (utils.py) and `sanitize` of models/deepseek_v3.py @ml-explore/mlx-lm.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from backends.base import ModelFileError
from backends.checkpoint import AGAIN, CONFIG, Checkpoint, short
from backends.gguf_header import is_gguf
from backends.reference.config import MODEL_TYPES, Config, Mla, Moe, parse_config
from backends.reference.weights import IGNORED, SCALE, check_tensors, check_tied

# Safetensors' dtypes that an MLX model can be made of; the others hold codes and their scales
FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CODES = ("F8_E4M3", "U32", "U8")
FP8_BLOCK = 128
DROPPED_LAYER = 61  # of DeepSeek-V3: mlx-lm takes a layer of this number for its MTP layer

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_MLX_LAYOUT = re.compile(r"\.(switch_mlp|embed_q|unembed_out)\.|\.scales$")
# bits and group of the formats whose scales are bytes
_MICROSCALING = {(4, 32): "mxfp4", (8, 32): "mxfp8", (4, 16): "nvfp4"}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """An opened folder whose headers fit its config.json. `used`: names of the tensors that are loaded, MTP layers left out."""

    folder: Path
    checkpoint: Checkpoint
    config: Config
    used: list[str]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises ModelFileError: missing or damaged files, an unknown or impossible model. No weights are read."""
        check_kind(folder)
        checkpoint = Checkpoint.open(folder)
        config = read_config(folder, checkpoint.config)
        return cls(folder, checkpoint, config, used_names(checkpoint, config))

    @property
    def quantized(self) -> bool:
        """In MLX's way."""
        return any(name.endswith(".scales") for name in self.used)

    @property
    def stored_bytes(self) -> int:
        return sum(map(self.checkpoint.nbytes, self.used))

    @property
    def dtype(self) -> str:
        """What most bytes are stored as: "BF16", "F8_E4M3"..."""
        sizes: Counter[str] = Counter()
        for name in self.used:
            sizes[self.checkpoint.dtype(name)] += self.checkpoint.nbytes(name)
        return sizes.most_common(1)[0][0]

    @property
    def float_dtype(self) -> str:
        """Of most weights that are floats, block FP8 decoded: all are computed in it."""
        sizes: Counter[str] = Counter()
        for name in self.used:
            dtype = self.checkpoint.dtype(name)
            if dtype in FLOATS and not name.endswith(SCALE):
                sizes[dtype] += self.checkpoint.nbytes(name)
            elif dtype == "F8_E4M3":
                sizes["BF16"] += 2 * self.checkpoint.nbytes(name)
        return sizes.most_common(1)[0][0] if sizes else "BF16"


def check_kind(folder: Path) -> None:
    """Raises ModelFileError: files of another backend."""
    try:
        if folder.is_file():
            if is_gguf(folder) or folder.suffix == ".gguf":
                raise ModelFileError(f"{folder}: is a GGUF file, which llama.cpp runs and MLX does not; use --backend gguf")
        elif folder.is_dir() and not (folder / CONFIG).exists() and (gguf := sorted(folder.glob("*.gguf"))):
            raise ModelFileError(f"{folder}: holds no {CONFIG} but {gguf[0].name}, a GGUF file; give that file, to --backend gguf")
    except OSError:
        pass  # opening the checkpoint says it better


def read_config(folder: Path, given: dict[str, Any]) -> Config:
    """Raises ModelFileError: what the reference refuses too, and what mlx-lm's networks cannot compute."""
    where = folder / CONFIG
    if given.get("model_type") not in MODEL_TYPES:
        raise ModelFileError(f"{where}: model_type is {short(given.get('model_type'))}; this backend runs {', '.join(MODEL_TYPES)}")
    raw = {key: value for key, value in given.items() if not key.startswith("localr1")}
    quantization = raw.pop("quantization", None)
    legacy = raw.get("quantization_config")
    if quantization or (isinstance(legacy, dict) and "group_size" in legacy and "quant_method" not in legacy):
        raw.pop("quantization_config", None)  # the same once more
    config = parse_config(raw)

    def refused(key: str, value: Any, why: str) -> ModelFileError:
        return ModelFileError(f"{where}: {key} is {short(value)}, {why}; convert this model to GGUF, or use --backend reference")

    kind = config.model_type
    if kind == "qwen3" and config.attention_bias:
        raise refused("attention_bias", True, "mlx-lm has no biases in qwen3")
    if kind == "qwen2" and config.gqa is not None and config.gqa.head_dim * config.num_attention_heads != config.hidden_size:
        raise refused("head_dim", config.gqa.head_dim, "mlx-lm wants hidden_size / num_attention_heads in qwen2")
    if kind in ("qwen2", "qwen3") and config.mlp_bias:
        raise refused("mlp_bias", True, f"mlx-lm has no biases there in {kind}")
    if config.mla is not None and config.tie_word_embeddings:
        raise refused("tie_word_embeddings", True, "mlx-lm wants an lm_head in DeepSeek models")
    if kind == "deepseek_v3" and config.num_hidden_layers > DROPPED_LAYER:
        raise refused("num_hidden_layers", config.num_hidden_layers, f"mlx-lm drops a deepseek_v3 model's layer {DROPPED_LAYER}")
    return config


def mlx_arguments(config: Config) -> dict[str, Any]:
    """Everything that mlx-lm's `ModelArgs` has a default for, said; of the rotary embedding, which is replaced, nothing."""
    made: dict[str, Any] = dict(
        model_type=config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope.theta,
        rope_scaling=None,
        tie_word_embeddings=config.tie_word_embeddings,
        attention_bias=config.attention_bias,
        mlp_bias=config.mlp_bias,
    )
    if config.gqa is not None:
        return made | {"num_key_value_heads": config.gqa.num_key_value_heads, "head_dim": config.gqa.head_dim}
    assert config.mla is not None
    made |= {key: getattr(config.mla, key) for key in Mla.__dataclass_fields__ if key != "softmax_scale"}
    made |= {"num_key_value_heads": config.num_attention_heads, "moe_layer_freq": 1, "n_routed_experts": None, "n_shared_experts": None}
    if config.model_type == "deepseek_v2":
        made["rope_scaling"] = {"factor": 1.0}  # it asks for one
    if config.moe is not None:
        made |= {key: getattr(config.moe, key) for key in Moe.__dataclass_fields__}
        made["n_shared_experts"] = config.moe.n_shared_experts or None
    return made


def used_names(checkpoint: Checkpoint, config: Config) -> list[str]:
    """Tensors without MTP layers and leftovers. Raises ModelFileError: a tensor is missing, surplus, misshapen or of a wrong dtype.

    Only what has mlx-lm's own layout is left to `check_fit`.
    """
    if config.num_hidden_layers > len(checkpoint.names()):
        raise ModelFileError(
            f"{checkpoint.folder / CONFIG}: num_hidden_layers is {config.num_hidden_layers:,}, the weights hold only "
            f"{len(checkpoint.names()):,} tensors; {AGAIN}"
        )
    if not any(map(_MLX_LAYOUT.search, checkpoint.names())):
        check_tensors(checkpoint, config)
        check_tied(checkpoint, config.tie_word_embeddings)
    used = []
    for name in checkpoint.names():
        layer = _LAYER.match(name)
        if not name.endswith(IGNORED) and (layer is None or int(layer[1]) < config.num_hidden_layers):
            used.append(name)
    for name in used:
        dtype = checkpoint.dtype(name)
        if dtype not in FLOATS and dtype not in CODES and not name.endswith(SCALE):
            raise ModelFileError(f"{checkpoint.folder}: tensor {short(name, 120)} is {dtype}, which MLX does not compute with; {AGAIN}")
    return used


def _load(mx: Any, file: Path) -> dict[str, Any]:
    """MLX wants paths in UTF-8; of others, it takes the open file, from which all is read at once."""
    try:
        str(file).encode()
    except UnicodeEncodeError:
        with file.open("rb") as opened:
            arrays = mx.load(opened, format="safetensors")
            mx.eval(arrays)
    else:
        arrays = mx.load(str(file), format="safetensors")
    assert isinstance(arrays, dict)
    return arrays


def read_arrays(mx: Any, files: ModelFiles, dtype: Any) -> dict[str, Any]:
    """MLX's arrays, not read yet, floats as `dtype`, block FP8 decoded; a router's bias keeps its own."""
    checkpoint = files.checkpoint
    loaded: dict[str, Any] = {}
    for file in checkpoint.files():
        loaded |= _load(mx, checkpoint.folder / file)
    made: dict[str, Any] = {}
    for name in files.used:
        x = loaded[name]
        if name.endswith(SCALE):
            continue
        if checkpoint.dtype(name) == "F8_E4M3":
            x = from_blocks(mx, x, _scales(mx, checkpoint, name + SCALE, loaded))
        if checkpoint.dtype(name) in (*FLOATS, "F8_E4M3") and not name.endswith("e_score_correction_bias"):
            x = x.astype(dtype)
        made[name] = x
    return made


def _scales(mx: Any, checkpoint: Checkpoint, name: str, loaded: dict[str, Any]) -> Any:
    if checkpoint.dtype(name) == "F8_E8M0":  # powers of two; MLX has no such type
        return mx.array(checkpoint.read(name).astype("float32"))
    return loaded[name].astype(mx.float32)


def from_blocks(mx: Any, codes: Any, scale_inv: Any) -> Any:
    """E4M3 uint8 [N, K], float32 [ceil(N/128), ceil(K/128)] -> float32 [N, K]. Source: DeepSeek-V3 inference/kernel.py, weight_dequant."""
    rows, columns = codes.shape
    scale = mx.repeat(mx.repeat(scale_inv, FP8_BLOCK, axis=0)[:rows], FP8_BLOCK, axis=1)[:, :columns]
    return mx.from_fp8(codes, dtype=mx.float32) * scale


def quantize(model: Any, weights: dict[str, Any]) -> str:
    """Make the modules quantized that have scales in `weights`, as the shapes there say; what they are packed as, "" if none is."""
    sizes: Counter[str] = Counter()

    def packing(path: str, module: Any) -> Any:
        scales = weights.get(f"{path}.scales")
        if scales is None or not hasattr(module, "to_quantized"):
            return False
        columns, codes = module.weight.shape[-1], weights[f"{path}.weight"]
        if columns % scales.shape[-1] or codes.shape[-1] * 32 % columns:
            raise ModelFileError(
                f"tensor {short(path, 120)}.weight has the shape {list(codes.shape)} and {list(scales.shape)} scales; config.json calls for "
                f"rows of {columns} weights; {AGAIN}"
            )
        group, bits = columns // scales.shape[-1], codes.shape[-1] * 32 // columns
        mode = _MICROSCALING.get((bits, group), "unknown") if "uint8" in str(scales.dtype) else "affine"
        sizes[f"{bits}bit-g{group}" if mode == "affine" else mode] += module.weight.size
        return {"group_size": group, "bits": bits, "mode": mode}

    if any(name.endswith(".scales") for name in weights):
        import_module("mlx.nn").quantize(model, class_predicate=packing)
    return "+".join(name for name, _ in sizes.most_common())


def check_fit(folder: Path, model: Any, weights: dict[str, Any]) -> None:
    """Raises ModelFileError: a tensor that the network has not, lacks, or has in another shape."""
    flat = dict(import_module("mlx.utils").tree_flatten(model.parameters()))
    for name, x in weights.items():
        if name not in flat:
            raise ModelFileError(f"{folder}: tensor {short(name, 120)} is not part of the model that config.json describes; {AGAIN}")
        if x.shape != flat[name].shape:
            raise ModelFileError(
                f"{folder}: tensor {short(name, 120)} has the shape {list(x.shape)}, config.json calls for {list(flat[name].shape)}; {AGAIN}"
            )
        if "int" in str(x.dtype) and x.dtype != flat[name].dtype:
            raise ModelFileError(f"{folder}: tensor {short(name, 120)} holds {x.dtype}, {flat[name].dtype} is needed there; {AGAIN}")
    lacking = [name for name in flat if name not in weights]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ModelFileError(f"{folder}: lacks tensor {lacking[0]!r}{more}, which config.json calls for; {AGAIN}")
