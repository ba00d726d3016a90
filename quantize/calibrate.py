"""Calibration: what a model's matrices are multiplied with while it reads a text, collected as it runs in llama.cpp.

Text is cut as llama-imatrix cuts it: BOS where the model's vocabulary asks for one, then the tokens; whole chunks, each computed
on its own, whose first token BOS replaces; the rest is left out. Nothing in the text becomes a control token.

Source: tools/imatrix/imatrix.cpp@ggml-org/llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, Self

from backends.base import Cancel, EngineError, ModelFileError
from backends.llamacpp_library import library, load_model, logged_reason, model_params, threads
from backends.plain_text import guard, harmless
from quantize.activations import Activations
from quantize.errors import QuantizeError
from quantize.ggml_graph import product, wants
from quantize.imatrix import ImportanceMatrix

CHUNK_TOKENS = 512
LEAST_TOKENS = 16  # llama-imatrix leaves out what is computed for fewer tokens at once
BUILT_IN = "localr1 built-in corpus"

Progress = Callable[[int, int], None]  # chunks done, chunks in all


class Cancelled(QuantizeError):
    """Whoever asked for the work has called it off."""

    def __init__(self) -> None:
        super().__init__("calibration was cancelled; nothing was written")


def corpus() -> str:
    """The built-in text to calibrate with: reasoning in R1's manner, English and Chinese, arithmetic, code, prose, tables, dialogue."""
    return (Path(__file__).parent / "corpus.txt").read_text(encoding="utf-8")


def heldout() -> str:
    """More of the same kind, no sentence of which is in `corpus`: to measure with what was not calibrated on."""
    return (Path(__file__).parent / "heldout.txt").read_text(encoding="utf-8")


def read_text(path: Path) -> str:
    """A text file to calibrate with. Raises QuantizeError: it is missing, or no text in UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise QuantizeError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise QuantizeError(f"{path}: is no text in UTF-8 (byte {error.start:,}); convert it to UTF-8") from None


def collect(
    model: Path,
    material: str | Sequence[Sequence[int]],
    *,
    datasets: tuple[str, ...] = (),
    chunk_tokens: int = CHUNK_TOKENS,
    most_chunks: int | None = None,
    on_progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> ImportanceMatrix:
    """Run the GGUF file `model` over `material`, a text or chunks of token ids of equal length; `datasets` names it in the file.

    Memory: the model, its logits of one chunk, and the sums. An exception raised by `on_progress` stops the work.

    Raises ModelFileError (the model cannot be loaded), EngineError (the engine fails), QuantizeError (the text is too short for
    one chunk, a token is out of range, activations are not finite), Cancelled (`cancel` was set).
    """
    with _Engine(model, cancel or Cancel()) as engine:
        if isinstance(material, str):
            chunks = cut(engine.encode(material), engine.bos, chunk_tokens, most_chunks)
        else:
            chunks = check_chunks(material, engine.vocabulary, most_chunks)
        engine.open(len(chunks[0]))
        for done, chunk in enumerate(chunks):
            if on_progress is not None:
                on_progress(done, len(chunks))
            engine.compute(chunk)
        if on_progress is not None:
            on_progress(len(chunks), len(chunks))
        return engine.seen.matrix(model, len(chunks), len(chunks[0]), datasets)


def cut(ids: Sequence[int], bos: int | None, chunk_tokens: int, most: int | None = None) -> list[list[int]]:
    """The first `most` whole chunks of a text's tokens, or all. Raises QuantizeError if there is none."""
    if chunk_tokens < LEAST_TOKENS:
        raise QuantizeError(f"chunks of {chunk_tokens} tokens were asked for; {LEAST_TOKENS} or more are needed")
    whole = list(ids) if bos is None else [bos, *ids]
    chunks = [whole[i : i + chunk_tokens] for i in range(0, len(whole) - chunk_tokens + 1, chunk_tokens)]
    if not chunks:
        raise QuantizeError(
            f"the calibration text has {len(whole):,} tokens, {chunk_tokens:,} are needed for one chunk; give a longer text"
        )
    for chunk in chunks:
        if bos is not None:
            chunk[0] = bos
    return _first(chunks, most)


def check_chunks(chunks: Sequence[Sequence[int]], vocabulary: int, most: int | None = None) -> list[list[int]]:
    """The first `most`, or all. Raises QuantizeError unless there are chunks, all of one length, of tokens 0 .. vocabulary - 1."""
    lengths = {len(chunk) for chunk in chunks}
    if len(lengths) != 1 or min(lengths) < LEAST_TOKENS:
        raise QuantizeError(f"calibration chunks have {sorted(lengths)} tokens; give chunks of one length, {LEAST_TOKENS} or more")
    low, high = min(map(min, chunks)), max(map(max, chunks))
    if low < 0 or high >= vocabulary:
        raise QuantizeError(f"a token id is out of range: {low} to {high} were given, the vocabulary has 0 to {vocabulary - 1}")
    return _first([list(chunk) for chunk in chunks], most)


def _first(chunks: list[list[int]], most: int | None) -> list[list[int]]:
    if most is not None and most < 1:
        raise QuantizeError(f"{most} chunks were asked for; 1 or more are needed")
    return chunks[:most]


class _Engine:
    """A model in llama.cpp whose multiplications are watched; `seen` is what came by. Of its own: no chat shares the context."""

    def __init__(self, model: Path, cancel: Cancel) -> None:
        if not model.is_file():
            raise ModelFileError(f"no model file at {model}; check the path")
        self.seen = Activations()
        self._c = c = library()
        self._ctx: Any = None
        self._thread = ThreadPoolExecutor(1, "calibrate")
        self._computing = RLock()  # held while the engine's memory is in use
        self._cancel, self._stop = cancel, False
        self._failure: BaseException | None = None
        self._passed = self._last = 0  # multiplications of this chunk so far, and of the whole chunk before it
        self._callback = c.ggml_backend_sched_eval_callback(self._watch)  # C keeps no reference of its own
        self._model = load_model(model, model_params())
        if not self._model:
            raise ModelFileError(
                f"{model} cannot be loaded: {logged_reason()}; it may be cut short or no GGUF file: fetch or convert it again"
            )
        self._vocab = c.llama_model_get_vocab(self._model)
        self.vocabulary: int = c.llama_vocab_n_tokens(self._vocab)
        self.bos: int | None = c.llama_vocab_bos(self._vocab) if c.llama_vocab_get_add_bos(self._vocab) else None

    def encode(self, text: str) -> list[int]:
        """The text's tokens, none of them an added one, whatever it spells."""
        c, special = self._c, 8 | 16 | 1  # llama_token_attr: control, user-defined, unknown
        added = [i for i in range(self.vocabulary) if c.llama_vocab_get_attr(self._vocab, i) & special]
        texts = (c.llama_vocab_get_text(self._vocab, i).decode("utf-8", "replace") for i in added)
        ids: list[int] = []
        for part in harmless(text, guard(texts)):
            data = part.encode("utf-8", "replace")
            buffer = (c.llama_token * (len(data) + 1))()
            count = c.llama_tokenize(self._vocab, data, len(data), buffer, len(buffer), False, False)
            if count < 0:
                raise EngineError(f"llama.cpp cannot encode {part[:40]!r}; change the calibration text")
            ids += buffer[:count]
        return ids

    def open(self, tokens: int) -> None:
        """A context for chunks of so many tokens, which are computed at once: what comes by is a whole chunk's."""
        c = self._c
        trained = c.llama_model_n_ctx_train(self._model)
        if tokens > trained:
            raise QuantizeError(f"chunks of {tokens:,} tokens were asked for and the model was trained for {trained:,}; use shorter ones")
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = tokens
        params.n_threads = params.n_threads_batch = threads(self._model)
        params.cb_eval = self._callback
        self._ctx = c.llama_init_from_model(self._model, params)
        if not self._ctx:
            raise EngineError(f"llama.cpp cannot open a context of {tokens:,} tokens: {logged_reason()}; try shorter chunks")

    def compute(self, chunk: Sequence[int]) -> None:
        """Read one chunk, and add up what comes by."""
        self._passed = 0
        # Ctrl+C reaches the main thread, and must not find it inside the callback: ctypes would print the exception and go on.
        result = self._thread.submit(self._decode, chunk).result()
        if self._failure is not None:
            raise self._failure
        if self._cancel.is_set():
            raise Cancelled
        if result != 0:
            raise EngineError(f"llama.cpp failed to compute (code {result}): {logged_reason()}; try shorter chunks")
        self._last = self._passed

    def _decode(self, chunk: Sequence[int]) -> int:
        c = self._c
        with self._computing:
            if self._stop:
                return 0
            c.llama_memory_clear(c.llama_get_memory(self._ctx), True)
            batch = c.llama_batch_init(len(chunk), 0, 1)
            try:
                for i, token in enumerate(chunk):
                    # Logits of every token: else the last layer computes its feed-forward for the last one alone.
                    batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
                    batch.seq_id[i][0] = 0
                batch.n_tokens = len(chunk)
                return int(c.llama_decode(self._ctx, batch))
            finally:
                c.llama_batch_free(batch)

    def _watch(self, node: int, ask: bool, _: Any) -> bool:
        """Asked before each node is computed whether it is of interest, and called again when one that is has been.

        To stop, take interest in any node and then say no: the engine leaves the graph there.
        """
        if self._stop or self._failure is not None or self._cancel.is_set():
            return ask
        try:
            if ask:
                return wants(node, LEAST_TOKENS)
            p = product(node)
            if p.experts is None:
                self.seen.add(p.name, p.x, p.matrices)
            else:
                self.seen.add_experts(p.name, p.x[0], p.experts, p.matrices[1])
        except BaseException as error:  # C cannot pass it on
            self._failure = error
            return False
        # All chunks have the same graph. What follows its last multiplication in a layer is the output head, a seventh of the work.
        self._passed += 1
        return self._passed != self._last

    def close(self) -> None:
        """Free the engine's memory, once it has stopped; calling it again does nothing."""
        self._stop = True  # seen before the next multiplication
        pressed: KeyboardInterrupt | None = None
        while self._model or self._ctx:
            try:
                with self._computing:
                    # Forgotten first, and then freed: an interrupt between the two must not have it freed twice.
                    context, self._ctx = self._ctx, None
                    if context:
                        self._c.llama_free(context)
                    model, self._model = self._model, None
                    if model:
                        self._c.llama_model_free(model)
            except KeyboardInterrupt as error:  # pressed again while the engine stops: it is not left half-way
                pressed = error
        self._thread.shutdown(wait=False)
        if pressed is not None:
            raise pressed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
