"""A checkpoint folder as one of mlx-lm's networks: plain or block-FP8 safetensors, or an MLX folder, quantized or not.

mlx-lm's classes compute; what a config means is read by `backends.reference.config`, because mlx-lm's own reading has other defaults
and knows less of rotary embeddings. Its router of experts is replaced: it masks the groups that are left out with 0, which is above
the negative scores of the others, and computes in bfloat16 what the models' makers compute in float32.

Source: models/{qwen2,llama,qwen3,deepseek_v2,deepseek_v3}.py @ml-explore/mlx-lm.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

from backends.base import BackendError, EngineError, ModelFileError
from backends.checkpoint import AGAIN, short
from backends.mlx_files import FLOATS, ModelFiles, check_fit, mlx_arguments, quantize, read_arrays
from backends.reference.config import Config, Moe
from backends.reference.rope import Rope, inverse_frequencies

INSTALL = 'pip install mlx mlx-lm (on Linux: "mlx[cpu]" mlx-lm)'


class Network:
    """One model, loaded and computed here. `parameters`: weights it has, packed ones counted one by one; `format`: "BF16", "4bit-g64"...

    `float32`: computes in float32 whatever the folder holds, to compare with others. Raises ModelFileError: the tensors are not those of
    the model. EngineError: MLX or mlx-lm is missing or fails.
    """

    def __init__(self, files: ModelFiles, float32: bool = False) -> None:
        self.mx = mx = engine()
        self.config = config = files.config
        network, self._caches = library(config.model_type)
        if mx.default_device() == mx.cpu and (files.quantized or config.moe is not None):
            float32 = True  # five times as fast with quantized weights; and of experts that are not, the CPU has no other product
        dtype = mx.float32 if float32 else getattr(mx, FLOATS[files.float_dtype])
        with _failing_as_model_file(files.folder):
            self._model = network.Model(network.ModelArgs.from_dict(mlx_arguments(config)))
            weights = self._model.sanitize(read_arrays(mx, files, dtype))
            self.format = quantize(self._model, weights) or files.dtype
            check_fit(files.folder, self._model, weights)
            self._model.load_weights(list(weights.items()))
        del weights
        self.parameters = _count(self._model)
        self.kv_bytes_per_token = _kv_bytes(config, dtype.size)
        try:
            self._model.eval()
            mx.eval(self._model.parameters())
            self._refine()
        except (RuntimeError, ValueError, MemoryError) as error:
            raise EngineError(
                f"MLX cannot load {files.folder} ({short(str(error), 200)}); free memory, or take a smaller quantization"
            ) from None

    def new_cache(self) -> list[Any]:
        layers: list[Any] = self._caches.make_prompt_cache(self._model)
        return layers

    def trim(self, cache: list[Any], tokens: int) -> bool:
        """Take the last `tokens` out of `cache`; False if it is of a kind that cannot be cut."""
        return bool(self._caches.trim_prompt_cache(cache, tokens) == tokens)

    def hidden(self, ids: Any, cache: list[Any]) -> Any:
        """Put `ids`, an MLX array [1, T], behind what `cache` holds; what the last norm gives [1, T, D], not computed yet."""
        return self._model.model(ids, cache)

    def logits(self, hidden: Any) -> Any:
        """[..., D] -> float32 [..., V], not computed yet. Of a quantized head float32 through and through, else rounded to the model's dtype."""
        mx, head, packing = self.mx, self._head, self._packing
        if packing is None:
            x = self._model.model.embed_tokens.as_linear(hidden) if self.config.tie_word_embeddings else head(hidden)
            return x.astype(mx.float32)
        return mx.quantized_matmul(hidden.astype(mx.float32), head.weight, transpose=True, **packing)

    def _refine(self) -> None:
        """Put our own rotary embeddings, routers and head beside mlx-lm's layers. What is made here is computed here: MLX
        cannot finish in one thread what another began."""
        mx, config = self.mx, self.config
        turns = Turns(mx, config.rope)
        for i, layer in enumerate(self._model.model.layers):
            layer.self_attn.rope = turns
            if config.mla is not None:
                layer.self_attn.scale = config.mla.softmax_scale
            if config.moe is not None and config.is_moe(i):
                layer.mlp.gate = Router(mx, config.moe, layer.mlp.gate)
        self._head = head = self._model.model.embed_tokens if config.tie_word_embeddings else self._model.lm_head
        self._packing: dict[str, Any] | None = None
        if hasattr(head, "bits"):
            self._packing = {"group_size": head.group_size, "bits": head.bits, "mode": head.mode, "scales": head.scales}
            if head.mode == "affine":
                self._packing |= {"scales": head.scales.astype(mx.float32), "biases": head.biases.astype(mx.float32)}
                mx.eval(self._packing["scales"], self._packing["biases"])


class Turns:
    """Rotary embedding of one kind of model, in place of mlx-lm's: all that `backends.reference.rope` knows."""

    def __init__(self, mx: Any, rope: Rope) -> None:
        self._mx, self._rope = mx, rope
        self._wavelengths = mx.array(1 / inverse_frequencies(rope))

    def __call__(self, x: Any, offset: int = 0) -> Any:
        if self._rope.attention_factor != 1:
            x = x * self._rope.attention_factor
        return self._mx.fast.rope(
            x, self._rope.dim, traditional=self._rope.interleaved, base=None, scale=1.0, offset=offset, freqs=self._wavelengths
        )


class Router:
    """x [..., D] -> the chosen experts [..., K] and their weights, in float32. See backends/reference/moe.py.

    Source: MoEGate.forward, modeling_deepseek.py@deepseek-ai/DeepSeek-V3 and -V2.
    """

    def __init__(self, mx: Any, moe: Moe, gate: Any) -> None:
        self._mx, self._moe = mx, moe
        self._columns = gate.weight.T.astype(mx.float32)
        self._bias = gate.e_score_correction_bias.astype(mx.float32) if moe.topk_method == "noaux_tc" else None
        mx.eval(self._columns, self._bias)

    def __call__(self, x: Any) -> tuple[Any, Any]:
        mx, moe = self._mx, self._moe
        scores = x.astype(mx.float32) @ self._columns
        scores = mx.sigmoid(scores) if moe.scoring_func == "sigmoid" else mx.softmax(scores, axis=-1, precise=True)
        rank = scores if self._bias is None else scores + self._bias
        if moe.topk_group < moe.n_group:
            groups = mx.unflatten(rank, -1, (moe.n_group, -1))
            judged = mx.topk(groups, 2 if moe.topk_method == "noaux_tc" else 1, axis=-1).sum(axis=-1)
            worst = mx.argpartition(judged, kth=moe.n_group - moe.topk_group - 1, axis=-1)[..., : moe.n_group - moe.topk_group]
            rank = mx.put_along_axis(groups, worst[..., None], mx.array(-mx.inf), axis=-2).flatten(-2, -1)
        chosen = mx.argpartition(-rank, kth=moe.num_experts_per_tok - 1, axis=-1)[..., : moe.num_experts_per_tok]
        weights = mx.take_along_axis(scores, chosen, axis=-1)
        if moe.norm_topk_prob:
            weights = weights / weights.sum(axis=-1, keepdims=True)
        return chosen, (weights * moe.routed_scaling_factor).astype(x.dtype)


# ------------------------------------------------------------------------------------------------------- the library


def engine() -> Any:
    """mlx.core. Raises EngineError if it is not installed."""
    try:
        import_module("mlx.nn")
        return import_module("mlx.core")
    except ImportError as error:  # on Linux also of the package without its CPU part
        raise EngineError(f"MLX cannot be used ({error}); install it: {INSTALL}") from None


@cache
def library(model_type: str) -> tuple[Any, Any]:
    """mlx-lm's modules of this architecture and of caches. Raises EngineError if mlx-lm is not installed or too old.

    Imported without mlx-lm's __init__.py, which imports transformers, for seconds, and lowers how many files the process may open: an
    empty package stands in for it. All is gone from sys.modules afterwards, so that another's `import mlx_lm` finds the real one.
    """
    there = {name for name in sys.modules if name.split(".")[0] == "mlx_lm"}
    spec = None if there else PathFinder.find_spec("mlx_lm")
    if spec is not None:
        sys.modules["mlx_lm"] = module_from_spec(spec)  # not executed
    try:
        return import_module(f"mlx_lm.models.{model_type}"), import_module("mlx_lm.models.cache")
    except ImportError as error:
        raise EngineError(f"mlx-lm cannot be used ({error}); install it: {INSTALL}") from None
    finally:
        if spec is not None:
            for name in [name for name in sys.modules if name.split(".")[0] == "mlx_lm"]:
                del sys.modules[name]


def _count(model: Any) -> int:
    """Weights, packed ones counted one by one, scales not."""
    total = 0
    for _, module in model.named_modules():
        for name, x in module.items():
            if hasattr(x, "size") and not (hasattr(module, "bits") and name in ("scales", "biases")):
                total += x.size * 32 // module.bits if hasattr(module, "bits") and name == "weight" else x.size
    return total


def _kv_bytes(config: Config, item: int) -> int:
    """What mlx-lm's cache holds of one token; deepseek_v2 keeps every head's keys and values, not the latent."""
    if config.gqa is not None:
        values = 2 * config.gqa.num_key_value_heads * config.gqa.head_dim
    else:
        assert config.mla is not None
        heads = config.num_attention_heads * (config.mla.qk_head_dim + config.mla.v_head_dim)
        values = heads if config.model_type == "deepseek_v2" else config.mla.kv_lora_rank + config.mla.qk_rope_head_dim
    return config.num_hidden_layers * values * item


@contextmanager
def _failing_as_model_file(folder: Path) -> Iterator[None]:
    """What mlx-lm and MLX say of values that they cannot take."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {short(str(error), 200)}"
        raise ModelFileError(f"{folder}: mlx-lm cannot make this model ({why}); {AGAIN}, or convert it to GGUF") from None
