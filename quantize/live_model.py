"""A model in llama.cpp whose weights are overwritten while it is loaded, to see what one changed tensor does to its predictions.

Source: ggml.h (`struct ggml_tensor`), ggml-backend.h (`ggml_backend_sched_eval_callback`, `ggml_backend_tensor_set`), llama.h
@ggml-org/llama.cpp.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from backends.base import EngineError, ModelFileError
from backends.llamacpp_library import library, load_model, logged_reason, threads
from quantize.formats import BY_GGML_TYPE, Format
from quantize.ggml_graph import _library, _op_codes, _Tensor, _weight_name

if TYPE_CHECKING:
    import numpy as np

_NO_MAPPING = 0  # LLAMA_LOAD_MODE_NONE: weights are read into memory that is the program's own


class LiveModel:
    """One GGUF file, all of it in memory.

    Raises ModelFileError (the file cannot be loaded), EngineError (the engine fails, or lays out its tensors in an unknown way).
    """

    def __init__(self, path: Path, chunk_tokens: int) -> None:
        self._c = c = library()
        self._model: Any = None
        self._ctx: Any = None
        _op_codes()  # checks the layout of tensors
        params = c.llama_model_default_params()
        params.load_mode = _NO_MAPPING
        params.use_extra_bufts = False  # no repacked weights, which could not be read and written as they are in the file
        self._model = load_model(path, params)
        if not self._model:
            raise ModelFileError(f"{path} cannot be loaded: {logged_reason()}; convert it again, or free memory")
        try:
            vocab = c.llama_model_get_vocab(self._model)
            self.vocabulary: int = c.llama_vocab_n_tokens(vocab)
            self.bos: int | None = c.llama_vocab_bos(vocab) if c.llama_vocab_get_add_bos(vocab) else None
            self._places = self._find()
            self._ctx = self._open(chunk_tokens)
        except BaseException:
            self.close()
            raise

    def __contains__(self, name: str) -> bool:
        """Whether a weight of this name takes part in the computation."""
        return name in self._places

    def format(self, name: str) -> Format:
        """How a weight is held."""
        return BY_GGML_TYPE[_Tensor.from_address(self._places[name][0]).type]

    def scores(self, chunk: Sequence[int]) -> np.ndarray:
        """float32 [T, V]: logits after each token of the chunk, which is read on its own. A copy."""
        import numpy as np

        c = self._c
        c.llama_memory_clear(c.llama_get_memory(self._ctx), True)
        self._decode(self._ctx, chunk)
        return np.array(np.ctypeslib.as_array(c.llama_get_logits(self._ctx), (len(chunk), self.vocabulary)))

    @contextmanager
    def overwritten(self, name: str, encoded: Iterable[np.ndarray]) -> Iterator[None]:
        """While it lasts, the weight holds other values: uint8 pieces, in order, of the format it is held in."""
        saved = self._read(name)
        try:
            self._write(name, encoded)
            yield
        finally:
            self._write(name, [saved])

    # ------------------------------------------------------------------------------------------ the engine's tensors

    def _read(self, name: str) -> np.ndarray:
        import numpy as np

        at = self._places[name][0]
        out = np.empty(self._nbytes(at), np.uint8)
        _base().ggml_backend_tensor_get(at, out.ctypes.data, 0, out.nbytes)
        return out

    def _write(self, name: str, pieces: Iterable[np.ndarray]) -> None:
        places = self._places[name]  # more than one where tied embeddings lie on two devices
        size, offset = self._nbytes(places[0]), 0
        for piece in pieces:
            if offset + piece.nbytes > size:
                raise ValueError(f"weight {name!r} has {size:,} bytes, more were given")
            for at in places:
                _base().ggml_backend_tensor_set(at, piece.ctypes.data, offset, piece.nbytes)
            offset += piece.nbytes
        if offset != size:
            raise ValueError(f"weight {name!r} has {size:,} bytes, {offset:,} were given")

    @staticmethod
    def _nbytes(at: int) -> int:
        t = _Tensor.from_address(at)
        return BY_GGML_TYPE[t.type].nbytes(tuple(reversed(t.ne)))

    def _find(self) -> dict[str, list[int]]:
        """The weights, seen in the graph as it is computed for one token."""
        found: dict[str, list[int]] = {}

        def look(node: int, ask: bool, _: Any) -> bool:
            for source in _Tensor.from_address(node).src:
                if source:
                    t = _Tensor.from_address(source)
                    at = t.view_src or source
                    name = _weight_name(_Tensor.from_address(at).name)
                    if name.endswith(".weight") and at not in found.setdefault(name, []):
                        found[name].append(at)
            return False

        callback = self._c.ggml_backend_sched_eval_callback(look)
        ctx = self._open(16, callback)
        try:
            # on a thread of its own, as ctypes prints and forgets what is raised inside a callback: Ctrl+C reaches the main thread
            with ThreadPoolExecutor(1) as thread:
                thread.submit(self._decode, ctx, [0]).result()
        finally:
            self._c.llama_free(ctx)
        return found

    def _open(self, tokens: int, callback: Any = None) -> Any:
        c = self._c
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = tokens
        params.n_threads = params.n_threads_batch = threads(self._model)
        params.op_offload = False  # weights are used where they lie: a copy on another device would not see the change
        if callback is not None:
            params.cb_eval = callback
        ctx = c.llama_init_from_model(self._model, params)
        if not ctx:
            raise EngineError(f"llama.cpp cannot open a context of {tokens:,} tokens: {logged_reason()}; free memory, or use shorter texts")
        return ctx

    def _decode(self, ctx: Any, chunk: Sequence[int]) -> None:
        c = self._c
        batch = c.llama_batch_init(len(chunk), 0, 1)
        try:
            for i, token in enumerate(chunk):
                batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
                batch.seq_id[i][0] = 0
            batch.n_tokens = len(chunk)
            result = c.llama_decode(ctx, batch)
        finally:
            c.llama_batch_free(batch)
        if result != 0:
            raise EngineError(f"llama.cpp failed to compute (code {result}): {logged_reason()}; try shorter texts")

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


@functools.cache
def _base() -> Any:
    """libggml-base, with what reads and writes a tensor wherever it lies."""
    lib = _library()
    for function in (lib.ggml_backend_tensor_set, lib.ggml_backend_tensor_get):
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        function.restype = None
    return lib
