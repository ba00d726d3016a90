"""Stage 0, where compute is short: the teacher's base from a trained student ("sparse upcycling", arXiv 2212.05055).

    python upcycle.py ../r1-tiny TRAIN.pt

DeepSeek-R1 began at a pretrained base, too. Embeddings and norms are the student's. Of each layer with experts, a third of the student's
feed-forward is the shared expert, the other thirds are the two experts of every group. Grouped-query attention becomes latent attention:
the latents begin as the normed input itself, which both norms in there leave as it is; the rotated key holds the keys of both key-value
heads, pair by pair at the nearest frequencies, and each query has zeros where the other head's are; biases come from the direction in the
input that is constant. What this conversion loses, the cold start mends.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from cold_start import packed
from data import Document, document
from student import Attention, Student, StudentConfig
from teacher import LatentAttention, MoE, MtpLayer, Teacher, TeacherConfig
from torch import Tensor, nn
from trainer import load, save


def load_student(folder: Path) -> Student:
    """The weights of a published folder, float32."""
    student = Student(StudentConfig())
    load(folder, student)
    return student


@torch.no_grad()
def upcycle(student: Student, teacher: Teacher, sample: list[Document]) -> None:
    teacher.model.embed_tokens.load_state_dict(student.model.embed_tokens.state_dict())
    teacher.lm_head.load_state_dict(student.lm_head.state_dict())
    teacher.model.norm.load_state_dict(student.model.norm.state_dict())
    constants = constant_directions(student, sample)
    for i, layer in enumerate(teacher.model.layers):
        i = min(i, len(student.model.layers) - 1)  # multi-token prediction begins as the last layer
        source = student.model.layers[i]
        _attention(layer.self_attn, source.self_attn, source.input_layernorm.weight, constants[i])
        layer.post_attention_layernorm.load_state_dict(source.post_attention_layernorm.state_dict())
        if isinstance(layer.mlp, MoE):
            _experts(layer.mlp, source.mlp)
        else:
            layer.mlp.load_state_dict(source.mlp.state_dict())
        if isinstance(layer, MtpLayer):
            layer.eh_proj.weight[:, teacher.config.hidden_size :] = torch.eye(teacher.config.hidden_size)
            layer.shared_head["norm"].load_state_dict(student.model.norm.state_dict())


def constant_directions(student: Student, sample: list[Document]) -> list[Tensor]:
    """For each layer the u [D] with u · x nearest to 1 for every attention input x, before the norm's weight."""
    inputs: list[Tensor] = []
    hooks = [
        layer.self_attn.register_forward_hook(lambda _, args, out, w=layer.input_layernorm.weight: inputs.append(args[0][0] / w))
        for layer in student.model.layers
    ]
    ids, _, view = packed(sample, "cpu")
    student(ids, view)
    for hook in hooks:
        hook.remove()
    return [torch.linalg.lstsq(x, torch.ones(len(x), 1)).solution[:, 0] for x in inputs]


def _attention(mla: LatentAttention, gqa: Attention, norm: Tensor, constant: Tensor) -> None:
    c, dim, hidden = mla.config, gqa.dim, gqa.q_proj.in_features
    assert c.q_lora_rank == c.kv_lora_rank == hidden and c.qk_rope_head_dim == gqa.kv_heads * dim
    q, k, v = (p.weight * norm + torch.outer(p.bias, constant) for p in (gqa.q_proj, gqa.k_proj, gqa.v_proj))
    # Half-split pair (i, i + dim / 2) of key-value head g -> neighbours: pair i kv_heads + g.
    pairs = torch.arange(dim).view(2, -1).T  # [dim / 2, 2]
    rows = (torch.arange(gqa.kv_heads)[None, :, None] * dim + pairs[:, None]).flatten()  # [r]: rows of k in the order of k_R
    mla.q_a_proj.weight.copy_(torch.eye(hidden))
    mla.kv_a_proj_with_mqa.weight.copy_(torch.cat([torch.eye(hidden), k[rows]]))
    queries = mla.q_b_proj.weight.view(gqa.heads, c.qk_head_dim, hidden)
    ups = mla.kv_b_proj.weight.view(gqa.heads, c.qk_nope_head_dim + c.v_head_dim, hidden)
    queries.zero_()
    for head in range(gqa.heads):
        group = head // (gqa.heads // gqa.kv_heads)
        own = (rows // dim == group).nonzero()[:, 0]
        queries[head, c.qk_nope_head_dim + own] = q[head * dim + rows[own] % dim] * (dim**-0.5 / mla.scale)
        ups[head, c.qk_nope_head_dim :] = v[group * dim : (group + 1) * dim]
    mla.o_proj.load_state_dict(gqa.o_proj.state_dict())


def _experts(moe: MoE, mlp: nn.Module) -> None:
    """Any group's two experts and the shared one are the student's feed-forward again: the two have one score, so each weighs 1."""
    width = moe.shared_experts.gate_proj.out_features
    for i, expert in enumerate([moe.shared_experts, *moe.experts]):
        third = 0 if i == 0 else 2 - i % 2
        part = slice(third * width, (third + 1) * width)
        expert.gate_proj.weight.copy_(mlp.gate_proj.weight[part])
        expert.up_proj.weight.copy_(mlp.up_proj.weight[part])
        expert.down_proj.weight.copy_(mlp.down_proj.weight[:, part])
    moe.gate.weight[1::2] = moe.gate.weight[0::2]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path, help="folder with the trained student")
    parser.add_argument("checkpoint", type=Path, help="file to write")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    model = Teacher(TeacherConfig())
    upcycle(load_student(args.student), model, [document(rng) for _ in range(64)])
    save(args.checkpoint, dict(model=model.state_dict()))
