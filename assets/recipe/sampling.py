"""Many replies at once: a batch that grows token by token, from which finished rows leave."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from data import decode, encode
from layers import Batch, autocast
from tokenizer import END_THINK, EOS
from torch import Tensor, nn

END = encode(EOS)[0]
DROP_AT = 0.75  # finished rows are taken out when this share, or less, is still going on


@torch.no_grad()
def sample(
    model: nn.Module, prompts: Sequence[list[int]], *, temperature: float, top_p: float = 1.0, max_new: int = 900, generator: torch.Generator
) -> list[list[int]]:  # fmt: skip
    """Token ids of a reply to each prompt, EOS included where it ended. Temperature 0 takes the likeliest token."""
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    padding = torch.tensor([longest - len(p) for p in prompts], device=device)
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=device)
    view = Batch(longest + max_new, padding)
    replies: list[list[int]] = [[] for _ in prompts]
    rows = torch.arange(len(prompts), device=device)  # which prompt each row of the batch answers
    trained, going = model.training, torch.ones(len(prompts), dtype=torch.bool, device=device)
    model.eval()
    with autocast(device.type):
        for _ in range(max_new):
            view.extend(ids.shape[1])
            ids = _choose(model(ids, view)[:, -1].float(), temperature, top_p, generator)
            for row, token, goes in zip(rows.tolist(), ids[:, 0].tolist(), going.tolist(), strict=True):
                if goes:
                    replies[row].append(token)
            going &= ids[:, 0] != END
            if not going.any():
                break
            if going.float().mean() <= DROP_AT:
                view.keep(going)
                ids, rows, going = ids[going], rows[going], going[going]
    model.train(trained)
    return replies


def _choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """[B, V] -> [B, 1]."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    p, order = (logits / temperature).softmax(dim=-1).sort(dim=-1, descending=True)
    p = p * (p.cumsum(dim=-1) - p < top_p)  # the likeliest always stays
    return order.gather(1, torch.multinomial(p, 1, generator=generator))


def split_reply(ids: list[int]) -> tuple[str, str]:
    """(thought, answer) of a reply that began inside its thought; the answer is "" where the thought or the reply did not end."""
    thought, _, answer = decode(ids).partition(END_THINK)
    return thought.strip("\n"), answer.removesuffix(EOS).strip() if ids and ids[-1] == END else ""
