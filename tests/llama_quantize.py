"""llama.cpp's own quantizer, from the installed library, and its files beside ours."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import llama_cpp

from backends.llamacpp_library import library
from quantize.gguf_reader import read_gguf_header
from quantize.imatrix import ImportanceMatrix


class _Imatrix(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.c_void_p), ("size", ctypes.c_size_t))


def llama_quantize(source: Path, target: Path, file_type: int, imatrix: ImportanceMatrix | None = None) -> bool:
    params = library().llama_model_quantize_default_params()
    params.ftype, params.nthread = file_type, 2
    if imatrix is not None:
        header = read_gguf_header(source)
        arrays = {t.name: w for t in header.tensors if (w := imatrix.weights(t.name, t.shape)) is not None}
        entries = (_Imatrix * (len(arrays) + 1))(*((n.encode(), a.ctypes.data, a.size) for n, a in arrays.items()))
        params.imatrix = ctypes.cast(entries, type(params.imatrix))
    return llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)) == 0


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    header, raw = read_gguf_header(path), path.read_bytes()
    return {t.name: (t.format.name, raw[t.begin : t.begin + t.nbytes]) for t in header.tensors}


def same(ours: Path, theirs: Path) -> None:
    a, b = tensors(ours), tensors(theirs)
    assert {n: t for n, (t, _) in a.items()} == {n: t for n, (t, _) in b.items()}
    assert [n for n in a if a[n][1] != b[n][1]] == []
    assert read_gguf_header(ours).metadata == read_gguf_header(theirs).metadata
