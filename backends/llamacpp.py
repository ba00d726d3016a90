"""GGUF on CPU, Metal, CUDA or Vulkan: llama.cpp through llama-cpp-python's low-level API.

The decode loop is ours, the sampler chain is llama.cpp's. One sequence; its KV cache is kept between calls, and a new
token list recomputes only what follows the prefix it shares with the last one.
"""

from __future__ import annotations

import codecs
import ctypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from backends.base import (
    Cancel,
    ChatFormat,
    End,
    EndReason,
    EngineError,
    ModelFileError,
    ModelInfo,
    PromptTooLong,
    Sampling,
    Segment,
    Special,
    Token,
    check_context,
    check_ids,
    common_prefix,
    room_behind,
)  # fmt: skip
from backends.gguf_header import FILE_TYPES
from backends.likelihood import likelihood
from backends.llamacpp_library import abort_callback, library, load_model, logged_reason, model_params, threads
from backends.memory import UBATCH_TOKENS, context_within
from backends.plain_text import guard, harmless

if TYPE_CHECKING:
    import numpy as np

    from backends.memory import CacheType

# Candidates that reach temperature and top-p: sorting a whole 152k vocabulary costs a quarter of the decode speed. What
# the others hold at temperature 0.6 is measured in the tests; it is far below the 5% that top-p cuts off anyway.
PREFILTER = 128

_CACHE_TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
_CONTROL, _USER_DEFINED, _UNKNOWN = 8, 16, 1  # llama_token_attr
_ABORTED = 2  # llama_decode's result after the abort callback said yes


class LlamaCppBackend:
    """One GGUF file, opened. See `backends.base.Backend` for the calls.

    `context`: tokens to hold; None for DeepSeek's 32,768 or what the model and the free memory allow, if that is less. `gpu_layers`: how
    many of its layers a GPU takes, None for all that it can; `kv`: the type that keys and values are kept in.
    Raises ModelFileError if the file is missing, damaged or unknown to llama.cpp; EngineError if the engine fails.
    """

    name = "gguf"

    def __init__(self, path: Path, context: int | None = None, gpu_layers: int | None = None, kv: CacheType = "f16") -> None:
        if not path.is_file():
            raise ModelFileError(f"no model file at {path}; check the path")
        self._c = c = library()
        self._model: Any = None
        self._ctx: Any = None
        self._model = load_model(path, model_params(), gpu_layers)
        if not self._model:
            raise ModelFileError(
                f"{path} cannot be loaded: {logged_reason()}; it may be cut short or no GGUF file: fetch or convert it again"
            )
        try:
            self._open_context(context, kv)
            self._vocab = c.llama_model_get_vocab(self._model)
            self._recurrent = c.llama_model_is_recurrent(self._model) or c.llama_model_is_hybrid(self._model)
            self._n_vocab: int = c.llama_vocab_n_tokens(self._vocab)
            self._added = self._added_tokens()
            self.info = self._model_info(path)
            self.chat_format = self._chat_format()
        except BaseException:
            self.close()
            raise
        self._guard = guard(self._added)
        self._guarded_ids = frozenset(i for text, i in self._added.items() if len(text) > 1)
        self._cached: list[int] = []  # tokens whose keys and values the cache holds
        self._strlen = abort_callback()
        self._cancel = Cancel()  # the one the engine looks at; kept, because it holds the memory

    # ------------------------------------------------------------------------------------------ loading

    def _open_context(self, asked: int | None, kv: CacheType) -> None:
        c = self._c
        params = c.llama_context_default_params()
        params.n_ctx = self._context = self._context_tokens(asked)  # the engine may round it up
        params.n_batch = min(UBATCH_TOKENS, params.n_ctx)
        params.n_threads = params.n_threads_batch = threads(self._model)
        if kv != "f16":  # the engine's own default
            params.type_k = params.type_v = _CACHE_TYPES[kv]
        self._ctx = c.llama_init_from_model(self._model, params)
        if not self._ctx:
            raise EngineError(
                f"llama.cpp cannot open a context of {params.n_ctx:,} tokens: {logged_reason()}; try a smaller --context"
                + " or --kv f16" * (kv != "f16")
            )
        self._memory = c.llama_get_memory(self._ctx)

    def _context_tokens(self, asked: int | None) -> int:
        """As asked and trained; by default also within half of the free memory (keys and values in F16)."""
        trained: int = self._c.llama_model_n_ctx_train(self._model)
        check_context(asked, trained)
        if asked is not None:
            return asked
        architecture = self._meta("general.architecture")
        layers, heads = self._c.llama_model_n_layer(self._model), self._c.llama_model_n_head_kv(self._model)
        width = self._c.llama_model_n_embd(self._model) // max(1, self._c.llama_model_n_head(self._model))
        key = int(self._meta(f"{architecture}.attention.key_length") or width)
        value = int(self._meta(f"{architecture}.attention.value_length") or width)
        bytes_per_token: int = max(1, layers * heads * (key + value) * 2)
        return context_within(trained, bytes_per_token)

    def _meta(self, key: str) -> str:
        """A metadata value as text; '' where there is none."""
        size = self._c.llama_model_meta_val_str(self._model, key.encode(), ctypes.create_string_buffer(1), 1)
        if size < 0:
            return ""
        buffer = ctypes.create_string_buffer(size + 1)
        self._c.llama_model_meta_val_str(self._model, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    def _model_info(self, path: Path) -> ModelInfo:
        size, weights = self._c.llama_model_size(self._model), self._c.llama_model_n_params(self._model)
        return ModelInfo(
            name=self._meta("general.name") or path.stem,
            architecture=self._meta("general.architecture"),
            base=self._meta("general.base_model.0.name"),
            context_length=self._context,
            format=FILE_TYPES.get(int(self._meta("general.file_type") or -1), "GGUF"),
            bits_per_weight=8 * size / max(1, weights),
            weight_bytes=size,
        )

    def _added_tokens(self) -> dict[str, int]:
        c, vocab = self._c, self._vocab
        special = _CONTROL | _USER_DEFINED | _UNKNOWN
        ids = [i for i in range(self._n_vocab) if c.llama_vocab_get_attr(vocab, i) & special]
        return {c.llama_vocab_get_text(vocab, i).decode("utf-8", "replace"): i for i in ids}

    def _chat_format(self) -> ChatFormat:
        c = self._c

        def text(token: int) -> str:
            return c.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace") if token >= 0 else ""

        template = c.llama_model_chat_template(self._model, None)
        return ChatFormat(
            template=template.decode("utf-8", "replace") if template else "",
            bos_token=text(c.llama_vocab_bos(self._vocab)),
            eos_token=text(c.llama_vocab_eos(self._vocab)),
            added_tokens=frozenset(self._added),
        )

    def close(self) -> None:
        """Free the engine's memory; calling it again does nothing."""
        if self._ctx:
            self._c.llama_free(self._ctx)
        if self._model:
            self._c.llama_model_free(self._model)
        self._ctx = self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --------------------------------------------------------------------------------------- text <-> ids

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        self._check_open()
        ids: list[int] = []
        for segment in segments:
            if isinstance(segment, Special):
                if segment.text not in self._added:
                    raise EngineError(
                        f"{segment.text!r} is no single token of {self.info.name}; its chat template does not fit its vocabulary"
                    )
                ids.append(self._added[segment.text])
            else:
                # Half a surrogate pair is no text: it becomes "?", before added tokens are looked for.
                for part in harmless(segment.text.encode("utf-8", "replace").decode("utf-8"), self._guard):
                    ids += self._tokenize(part)
        return ids

    def _tokenize(self, text: str) -> list[int]:
        data = text.encode()
        buffer = (self._c.llama_token * (len(data) + 1))()
        count = self._c.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, False)
        ids = list(buffer[:count])
        if count < 0 or not self._guarded_ids.isdisjoint(ids):
            raise EngineError(f"{self.info.name} cannot encode {text[:40]!r} as plain text; remove it from the message")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        self._check(ids)
        return b"".join(map(self._piece, ids)).decode("utf-8", "replace")

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = self._c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = self._c.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, True)
        return buffer.raw[:size]

    # ---------------------------------------------------------------------------------------- continuing

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        self._check(ids)
        limit, full = room_behind(ids, self.info.context_length, sampling)
        prompt, began = len(ids), perf_counter()
        reused = self._keep_prefix(ids[:-1])  # the last token is computed again for its logits
        computed = self._compute(ids[reused:], cancel)
        self._c.llama_synchronize(self._ctx)  # a GPU is still at it when llama_decode returns
        prefilled = perf_counter()

        new = 0
        reason: EndReason = "cancelled"
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        sampler = self._sampler(sampling)
        try:
            while computed and not cancel.is_set():
                if new >= limit:
                    reason = full
                    break
                token = self._c.llama_sampler_sample(sampler, self._ctx, -1)
                if self._c.llama_vocab_is_eog(self._vocab, token):
                    reason = "stop"
                    break
                new += 1
                yield self._token(token, utf8.decode(self._piece(token)))
                self._check_open()
                computed = cancel.is_set() or new >= limit or self._compute([token], cancel)
        finally:
            self._c.llama_sampler_free(sampler)
        yield End(reason, prompt, reused, new, prefilled - began, perf_counter() - prefilled)

    def prefill(self, ids: Sequence[int], cancel: Cancel) -> int:
        self._check(ids)
        ids = ids[: self.info.context_length]
        self._compute(ids[self._keep_prefix(ids) :], cancel)
        return len(self._cached)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check(ids)
        if len(ids) > self.info.context_length:
            raise PromptTooLong(len(ids), self.info.context_length)
        self._watch(Cancel())
        out = np.empty((len(ids), self._n_vocab), np.float32)
        self._keep_prefix([])
        for start in range(0, len(ids), 512):
            part = ids[start : start + 512]
            batch = self._c.llama_batch_init(len(part), 0, 1)
            try:
                for i, token in enumerate(part):
                    batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, start + i, 1, 1
                    batch.seq_id[i][0] = 0
                batch.n_tokens = len(part)
                self._checked(self._decode(batch))
            finally:
                self._c.llama_batch_free(batch)
            self._cached += part
            rows = np.ctypeslib.as_array(self._c.llama_get_logits(self._ctx), (len(part), self._n_vocab))
            out[start : start + len(part)] = rows
        return out

    def _keep_prefix(self, ids: Sequence[int]) -> int:
        """Drop from the cache what `ids` does not start with; returns how many tokens stay."""
        kept = common_prefix(self._cached, ids)
        if kept < len(self._cached):
            if not self._c.llama_memory_seq_rm(self._memory, 0, kept, -1):  # the state of a recurrent model cannot be cut
                self._forget()
                return 0
            del self._cached[kept:]
        return kept

    def _forget(self) -> None:
        self._c.llama_memory_clear(self._memory, True)
        self._cached.clear()

    def _compute(self, ids: Sequence[int], cancel: Cancel) -> bool:
        """Put `ids` behind the cached tokens, logits for the last one; False when cancelled on the way."""
        self._watch(cancel)
        for start in range(0, len(ids), UBATCH_TOKENS):
            if cancel.is_set():  # a GPU does not look while it computes
                return False
            part = ids[start : start + UBATCH_TOKENS]
            tokens = (self._c.llama_token * len(part))(*part)
            result = self._decode(self._c.llama_batch_get_one(tokens, len(part)))
            if result == _ABORTED and self._recurrent:  # its state is that of some token in between
                self._forget()
                return False
            if result == _ABORTED:
                held = self._c.llama_memory_seq_pos_max(self._memory, 0) + 1
                self._cached += part[: held - len(self._cached)]
                return False
            self._checked(result)
            self._cached += part
        return True

    def _decode(self, batch: Any) -> int:
        """llama.cpp's code for how it went."""
        try:
            result: int = self._c.llama_decode(self._ctx, batch)
        except BaseException:  # Ctrl+C within the call: how much of the batch is there is unknown
            self._forget()
            raise
        return result

    def _watch(self, cancel: Cancel) -> None:
        """Have the engine stop when `cancel` is set."""
        self._cancel = cancel
        self._c.llama_set_abort_callback(self._ctx, self._strlen, ctypes.c_void_p(cancel.address))

    def _check_open(self) -> None:
        if not self._ctx:
            raise EngineError("the model is closed; open it again")

    def _check(self, ids: Sequence[int]) -> None:
        self._check_open()
        check_ids(ids, self._n_vocab)

    def _checked(self, result: int) -> None:
        if result != 0:
            self._forget()
            raise EngineError(f"llama.cpp failed to compute (code {result}): {logged_reason()}; try a smaller --context")

    def _sampler(self, sampling: Sampling) -> Any:
        c = self._c
        chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if sampling.greedy:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_greedy())
            return chain
        # Sorting a small vocabulary costs nothing, and where nothing or little is to be cut off the tail matters.
        prefilter = PREFILTER if self._n_vocab > 4096 and sampling.top_p < 1 and sampling.temperature <= 1 else 0
        if top_k := sampling.top_k or prefilter:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_k(top_k))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_temp(sampling.temperature))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_min_p(sampling.min_p, 1))
        seed = c.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_dist(seed))
        return chain

    def _token(self, token: int, text: str) -> Token:
        """With what the logits it was drawn from say of it."""
        import numpy as np

        logits = np.ctypeslib.as_array(self._c.llama_get_logits_ith(self._ctx, -1), (self._n_vocab,))
        if not np.isfinite(logits[token]):
            self._forget()
            raise EngineError(f"{self.info.name} gives scores that are no numbers: its weights are damaged; download or convert it again")
        logprob, others = likelihood(logits, token, lambda other: self._piece(other).decode("utf-8", "replace"))
        return Token(token, text, logprob, others)
