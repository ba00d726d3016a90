"""A checkpoint's tensors as mlx-lm names and orders them: what its `sanitize` makes of them.

Dense models keep their names. A DeepSeek layer's experts are stacked into `switch_mlp`; DeepSeek-V3's kv_b_proj is cut, head by head,
into its key half, transposed, and its value half. MTP layers are left out, and so is the output of a model that uses its embedding for it.

Source: models/{qwen2,llama,qwen3,deepseek_v2,deepseek_v3}.py @ml-explore/mlx-lm.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from quantize.dimensions import DeepseekDimensions, DenseDimensions, Model
from quantize.gguf_names import TensorName

ORDER = (
    "self_attn.q_proj", "self_attn.q_a_proj", "self_attn.q_a_layernorm", "self_attn.q_b_proj", "self_attn.kv_a_proj_with_mqa",
    "self_attn.kv_a_layernorm", "self_attn.kv_b_proj", "self_attn.embed_q", "self_attn.unembed_out", "self_attn.k_proj",
    "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm", "self_attn.k_norm",
    "mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj", "mlp.gate",
    "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip
LAYERS, OUTSIDE = 1, {"model.embed_tokens.weight": 0, "model.norm.weight": 2, "lm_head.weight": 3}
RANK = {module: i for i, module in enumerate(ORDER)}


@dataclass(frozen=True, slots=True)
class MlxTensor:
    """One of mlx-lm's tensors before it is quantized, and where it comes from."""

    name: str
    shape: tuple[int, ...]
    origin: TensorName

    @property
    def is_matrix(self) -> bool:
        """Whether mlx-lm quantizes it: of the matrices, all but the router."""
        return len(self.shape) > 1 and not self.name.endswith("mlp.gate.weight")


def mlx_tensors(tensors: Iterable[TensorName], d: Model) -> list[MlxTensor]:
    """In mlx-lm's order, which says where shards are cut. `tensors`: all that the checkpoint holds, checked."""
    ranks = dict(RANK)
    if isinstance(d, DenseDimensions):  # its feed-forward block names the way out before the way up
        ranks |= {"mlp.down_proj": RANK["mlp.up_proj"], "mlp.up_proj": RANK["mlp.down_proj"]}

    def place(tensor: MlxTensor) -> tuple[int, ...]:
        parts = tensor.name.split(".")
        if "layers" not in parts:
            return (OUTSIDE[tensor.name],)
        return LAYERS, int(parts[2]), ranks[".".join(parts[3:-1])], parts[-1] != "weight"

    return sorted(_renamed(tensors, d), key=place)


def _renamed(tensors: Iterable[TensorName], d: Model) -> Iterator[MlxTensor]:
    for tensor in tensors:
        source = tensor.sources[0]
        if tensor.dropped or (d.tied and source == "lm_head.weight"):
            continue
        if isinstance(d, DeepseekDimensions):
            yield from _deepseek(tensor, d)
        else:  # rows in the checkpoint's own order: mlx-lm rotates halves
            yield MlxTensor(source, tensor.source_shape, replace(tensor, arrange=None))


def _deepseek(tensor: TensorName, d: DeepseekDimensions) -> Iterator[MlxTensor]:
    source, part = tensor.sources[0], tensor.gguf.split(".")[-2]
    if part in ("attn_k_b", "attn_v_b") and d.gating == "softmax":  # V2 has it in one piece
        if part == "attn_k_b":
            yield MlxTensor(source, tensor.source_shape, replace(tensor, arrange=None))
    elif part in ("attn_k_b", "attn_v_b"):
        yield MlxTensor(source.replace("kv_b_proj", "embed_q" if part == "attn_k_b" else "unembed_out"), tensor.shape, tensor)
    else:
        yield MlxTensor(source.replace("experts.0.", "switch_mlp.") if len(tensor.sources) > 1 else source, tensor.shape, tensor)
