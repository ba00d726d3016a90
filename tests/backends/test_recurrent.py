"""A model whose state cannot be cut (mamba): what is computed anew, and what an interruption leaves. The real engine, random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backends.base import Cancel, End, Sampling, Token
from backends.llamacpp import LlamaCppBackend
from quantize.formats import BY_GGML_TYPE
from quantize.gguf_file import GgufWriter, TensorInfo, Value, real, text, uint
from quantize.gguf_reader import read_gguf_header

WIDTH, INNER, CONV, STATE, RANK = 32, 64, 4, 8, 4


@pytest.fixture(scope="module")
def mamba(student_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, the bundled model's tokens."""
    path, header = tmp_path_factory.mktemp("mamba") / "mamba.gguf", read_gguf_header(student_gguf)
    tokens = {k: Value(header.kinds[k], v, header.items.get(k)) for k, v in header.metadata.items() if k.startswith("tokenizer.")}
    metadata = tokens | {
        "general.architecture": text("mamba"), "mamba.context_length": uint(2048), "mamba.embedding_length": uint(WIDTH),
        "mamba.feed_forward_length": uint(0), "mamba.attention.head_count": uint(0), "mamba.block_count": uint(1),
        "mamba.ssm.conv_kernel": uint(CONV), "mamba.ssm.inner_size": uint(INNER), "mamba.ssm.state_size": uint(STATE),
        "mamba.ssm.time_step_rank": uint(RANK), "mamba.attention.layer_norm_rms_epsilon": real(1e-5),
    }  # fmt: skip
    shapes = {
        "token_embd.weight": (len(header.metadata["tokenizer.ggml.tokens"]), WIDTH), "output_norm.weight": (WIDTH,),
        "blk.0.attn_norm.weight": (WIDTH,), "blk.0.ssm_in.weight": (2 * INNER, WIDTH), "blk.0.ssm_conv1d.weight": (INNER, CONV),
        "blk.0.ssm_conv1d.bias": (INNER,), "blk.0.ssm_x.weight": (RANK + 2 * STATE, INNER), "blk.0.ssm_dt.weight": (INNER, RANK),
        "blk.0.ssm_dt.bias": (INNER,), "blk.0.ssm_a": (INNER, STATE), "blk.0.ssm_d": (INNER,), "blk.0.ssm_out.weight": (WIDTH, INNER),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    with GgufWriter(path, metadata, [TensorInfo(name, shape, BY_GGML_TYPE[0]) for name, shape in shapes.items()]) as writer:
        for name, shape in shapes.items():
            weights = np.ones(shape) if "norm" in name else 0.3 * rng.standard_normal(shape)
            weights = -abs(weights) - 0.05 if name.endswith("ssm_a") else weights  # it decays
            writer.write(name, [weights.astype(np.float32).tobytes()])
    return path


@pytest.fixture
def backend(mamba: Path) -> Iterator[LlamaCppBackend]:
    with LlamaCppBackend(mamba, 2048) as backend:
        yield backend


def written(backend: LlamaCppBackend, ids: list[int]) -> tuple[list[tuple[int, float]], End]:
    *tokens, end = backend.stream(ids, Sampling(temperature=0, max_tokens=8), Cancel())
    assert isinstance(end, End)
    return [(token.id, token.logprob) for token in tokens if isinstance(token, Token)], end


def test_another_end_is_computed_from_the_beginning(backend: LlamaCppBackend, mamba: Path) -> None:
    ids = list(range(40, 70))
    written(backend, ids)
    other, end = written(backend, [*ids[:20], 200, 201])
    with LlamaCppBackend(mamba, 2048) as fresh:
        assert other == written(fresh, [*ids[:20], 200, 201])[0]
    assert end.reused_tokens == 0


def test_what_goes_on_is_reused(backend: LlamaCppBackend) -> None:
    ids = list(range(40, 70))
    assert backend.prefill(ids, Cancel()) == 30
    assert written(backend, [*ids, 99])[1].reused_tokens == 30


class Unseen(Cancel):
    """Set for the engine, which looks while it computes, and not for whoever called it."""

    def is_set(self) -> bool:
        return False


def test_an_interruption_leaves_nothing_half_computed(backend: LlamaCppBackend, mamba: Path) -> None:
    ids, cancel = [40 + i % 200 for i in range(300)], Unseen()
    cancel.set()
    assert backend.prefill(ids, cancel) == 0
    with LlamaCppBackend(mamba, 2048) as fresh:
        assert written(backend, ids)[0] == written(fresh, ids)[0]
