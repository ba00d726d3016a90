"""What a checkpoint must hold, and whether it does: every name, shape and dtype is checked before a byte is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from backends.checkpoint import Checkpoint, short
from quantize.dimensions import DeepseekDimensions, DenseDimensions, Model
from quantize.errors import UnsupportedModel
from quantize.gguf_deepseek import deepseek_layers
from quantize.gguf_names import TensorName, dense_layers, one
from quantize.rows import FP8_BLOCK, Fp8Rows, Rows

SOURCE_DTYPES = ("BF16", "F16", "F32")
FP8 = "F8_E4M3"
SCALE = "_scale_inv"  # an FP8 weight's scales have its name with this behind it
SCALE_DTYPES = (*SOURCE_DTYPES, "F8_E8M0")

# Buffers that some checkpoints carry and every program recomputes.
IGNORED_SUFFIXES = (".rotary_emb.inv_freq",)


def tensor_names(checkpoint: Checkpoint, d: Model) -> list[TensorName]:
    """Every tensor the architecture has and the checkpoint holds, in the checkpoint's order.

    Raises UnsupportedModel: a tensor is unknown, missing, of another shape or in a format that cannot be read. ModelFileError: what the
    config ties are two.
    """
    _check_counts(checkpoint, d)
    wanted = [
        one("model.embed_tokens.weight", "token_embd.weight", (d.vocabulary, d.hidden)),
        one("model.norm.weight", "output_norm.weight", (d.hidden,)),
        # with tied embeddings, llama.cpp uses token_embd for the output too
        one("lm_head.weight", "output.weight", (d.vocabulary, d.hidden), optional=d.tied),
        *(dense_layers(d) if isinstance(d, DenseDimensions) else deepseek_layers(d)),
    ]
    shapes = {source: tensor.source_shape for tensor in wanted for source in tensor.sources}
    place: dict[str, int] = {}
    fp8 = _uses_fp8(checkpoint)
    for name in checkpoint.names():
        if name.endswith(IGNORED_SUFFIXES):
            continue
        if name.endswith(SCALE) and fp8:
            _check_scale(name, checkpoint)
            continue
        if name not in shapes:
            raise UnsupportedModel(
                f"tensor {short(name, 120)} is not part of a {d.architecture} model of {d.layers} layers as config.json describes it"
            )
        _check(name, shapes[name], checkpoint, fp8)
        place[name] = len(place)
    missing = [source for tensor in wanted for source in tensor.sources if not tensor.optional and source not in place]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedModel(f"the checkpoint lacks tensor {missing[0]!r}{more}, which config.json calls for; download it again")
    if d.tied:
        from backends.reference.weights import check_tied

        check_tied(checkpoint, d.tied)
    present = [tensor for tensor in wanted if all(source in place for source in tensor.sources)]
    return sorted(present, key=lambda tensor: place[tensor.sources[0]])


def source_rows(tensor: TensorName, checkpoint: Checkpoint) -> Iterator[tuple[str, Rows]]:
    """The tensor's sources by name, each as a matrix of rows as GGUF has them; nothing is read yet."""
    for source in tensor.sources:
        array = checkpoint.read(source)
        if array.ndim == 1:  # rows of one, where rows move
            array = array.reshape(1, -1) if tensor.arrange is None else array.reshape(-1, 1)
        rows: Rows = array
        if checkpoint.dtype(source) == FP8:
            rows = Fp8Rows(array.view("u1"), checkpoint.read(source + SCALE))
        yield source, rows if tensor.arrange is None else tensor.arrange(rows)


def _check_counts(checkpoint: Checkpoint, d: Model) -> None:
    """The lists below are as long as config.json says: no longer than what is there."""
    tensors = len(checkpoint.names())
    counts = {"num_hidden_layers": d.layers}
    if isinstance(d, DeepseekDimensions):
        counts["n_routed_experts"] = d.experts
        counts["n_routed_experts in all layers"] = d.experts * max(0, d.layers - d.dense_layers)
    for key, value in counts.items():
        if value > tensors:
            raise UnsupportedModel(f"config.json: {key} is {value:,}, the weights hold only {tensors:,} tensors")


def _uses_fp8(checkpoint: Checkpoint) -> bool:
    """Whether config.json says that weights are in FP8 blocks as DeepSeek-V3 stores them. Raises UnsupportedModel for other ways."""
    q: Any = checkpoint.config.get("quantization_config")
    if q in (None, {}):
        return False
    known = {"quant_method": ("fp8",), "fmt": ("e4m3", None), "weight_block_size": ([FP8_BLOCK, FP8_BLOCK],)}
    if not isinstance(q, dict) or any(q.get(key) not in values for key, values in known.items()):
        raise UnsupportedModel(
            f"config.json: quantization_config is {short(q)}; of quantized weights, only block FP8 with blocks of 128 x 128 can be converted; "
            "convert the model's BF16 weights"
        )
    if not any(checkpoint.dtype(name) == FP8 for name in checkpoint.names()):
        raise UnsupportedModel(
            f"config.json: quantization_config is {short(q)}, and no weight is in FP8; remove the key or download the weights again"
        )
    return True


def _check(name: str, shape: tuple[int, ...], checkpoint: Checkpoint, fp8: bool) -> None:
    if checkpoint.shape(name) != shape:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} has the shape {list(checkpoint.shape(name))}, config.json calls for {list(shape)}"
        )
    dtype = checkpoint.dtype(name)
    if dtype == FP8 and fp8 and len(shape) == 2:
        if name + SCALE not in checkpoint:
            raise UnsupportedModel(
                f"tensor {short(name, 120)} is {FP8} and its scale {short(name + SCALE, 120)} is missing; download it again"
            )
    elif dtype not in SOURCE_DTYPES:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} is {dtype}; weights in {', '.join(SOURCE_DTYPES)} can be converted, and matrices in block FP8 where "
            "config.json has a quantization_config that says so"
        )


def _check_scale(name: str, checkpoint: Checkpoint) -> None:
    weight = name.removesuffix(SCALE)
    if weight not in checkpoint:
        raise UnsupportedModel(f"tensor {short(name, 120)} is a scale, and its weight is missing; download it again")
    if checkpoint.dtype(weight) != FP8:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} is a scale, and its weight is {checkpoint.dtype(weight)} instead of {FP8}; download it again"
        )
    blocks = tuple(-(-size // FP8_BLOCK) for size in checkpoint.shape(weight))
    if checkpoint.shape(name) != blocks:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} has the shape {list(checkpoint.shape(name))}, the blocks of its weight need {list(blocks)}; download it again"
        )
    if checkpoint.dtype(name) not in SCALE_DTYPES:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} is {checkpoint.dtype(name)}; scales in {', '.join(SCALE_DTYPES)} can be converted"
        )
