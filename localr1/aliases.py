"""The R1 family by short names: data. Sources: the model cards of deepseek-ai."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Repo:
    """A repository on the hub. `checked`: it was seen to exist."""

    name: str
    checked: bool = True


@dataclass(frozen=True, slots=True)
class Alias:
    """`family` distilled onto `base`. `bits` of `mlx`: its -Nbit folders; {bits} in the name stands for one of them, -4bit was checked.

    `q4_bytes`: about what its Q4_K_M file takes, to plan without the network. `cache_bytes`: of keys and values in F16, per token.
    """

    name: str
    family: str
    base: str
    parameters: float
    q4_bytes: float
    cache_bytes: int
    source: Repo
    gguf: tuple[Repo, ...]
    mlx: Repo

    @property
    def title(self) -> str:
        return f"{self.family}, base {self.base}"

    @property
    def model(self) -> str:
        """The published name: DeepSeek-R1-Distill-Qwen-1.5B."""
        return self.source.name.partition("/")[2]


def _distill(
    name: str, model: str, base: str, parameters: float, q4_bytes: float, layers: int, kv_width: int, mlx_checked: bool = True
) -> Alias:
    full = f"DeepSeek-R1-Distill-{model}"
    return Alias(
        name, "R1-Distill", base, parameters, q4_bytes, 2 * 2 * layers * kv_width, Repo(f"deepseek-ai/{full}"),
        (Repo(f"bartowski/{full}-GGUF"), Repo(f"unsloth/{full}-GGUF")), Repo(f"mlx-community/{full}-{{bits}}", mlx_checked),
    )  # fmt: skip


_R1_0528 = "DeepSeek-R1-0528-Qwen3-8B"

FAMILY = (
    _distill("r1:1.5b", "Qwen-1.5B", "Qwen2.5-Math-1.5B", 1.78e9, 1.12e9, 28, 256),
    _distill("r1:7b", "Qwen-7B", "Qwen2.5-Math-7B", 7.62e9, 4.68e9, 28, 512),
    _distill("r1:8b", "Llama-8B", "Llama-3.1-8B", 8.03e9, 4.92e9, 32, 1024, mlx_checked=False),
    _distill("r1:14b", "Qwen-14B", "Qwen2.5-14B", 14.8e9, 8.99e9, 48, 1024),
    _distill("r1:32b", "Qwen-32B", "Qwen2.5-32B", 32.8e9, 19.9e9, 64, 1024),
    _distill("r1:70b", "Llama-70B", "Llama-3.3-70B-Instruct", 70.6e9, 42.5e9, 80, 1024),
    Alias(
        "r1-0528:8b", "R1-0528-Distill", "Qwen3-8B-Base", 8.19e9, 5.03e9, 2 * 2 * 36 * 1024, Repo(f"deepseek-ai/{_R1_0528}"),
        (Repo(f"unsloth/{_R1_0528}-GGUF"),), Repo(f"mlx-community/{_R1_0528}-{{bits}}"),
    ),
)  # fmt: skip
ALIASES = {alias.name: alias for alias in FAMILY}


# What names of copies add: the format, the quantization, its tool. Anything else (-abliterated, -Japanese) is another model.
_COPY = r"(?:[-_.](?:gguf|mlx|ud|i1|imat|imatrix|unsloth|bnb|dwq|\d+bit|[it]?q\d\w*|mxfp\d|nvfp4|bf16|fp?(?:8|16|32)|\d{5}-of-\d{5}))*"


def alias_of(repo: str) -> Alias | None:
    """What a repository, or a file, is a copy of, by its name."""
    return next((alias for alias in FAMILY if re.search(rf"{re.escape(alias.model)}{_COPY}(?![\w.-])", repo, re.IGNORECASE)), None)
