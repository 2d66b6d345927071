"""Sample completions in batches.

In:  prompts as token ids, a model on any device
Out: per prompt, the tokens it wrote before its end token, and whether it ended by itself
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from core.fim import FimTokens


class Written(NamedTuple):
    """What the model wrote for prompt number `prompt`: tokens without the end token."""

    prompt: int
    ids: list[int]
    ended: bool


@torch.inference_mode()
def sample(
    model: torch.nn.Module,
    prompts: Sequence[list[int]],
    tokens: FimTokens,
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch: int,
    seed: int,
) -> Iterator[Written]:
    """`samples` completions of every prompt; prompts of like length share a batch, and each batch has its own seed.

    Prompts are padded on the left to (B, T); any marker counts as an end, since none belongs in a middle.
    """
    stops = list(tokens)
    device = next(model.parameters()).device
    by_length = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    model.eval()
    for at in range(0, len(by_length), batch):
        chosen = by_length[at : at + batch]
        longest = max(len(prompts[index]) for index in chosen)
        ids = torch.full((len(chosen), longest), tokens.pad)
        mask = torch.zeros_like(ids)
        for row, index in enumerate(chosen):
            ids[row, longest - len(prompts[index]) :] = torch.tensor(prompts[index])
            mask[row, longest - len(prompts[index]) :] = 1
        torch.manual_seed(seed + at)
        out = model.generate(  # type: ignore[operator]
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            do_sample=True,
            temperature=temperature,
            top_p=top_p,
            top_k=0,
            num_return_sequences=samples,
            max_new_tokens=max_new_tokens,
            eos_token_id=stops,
            pad_token_id=tokens.pad,
        )
        for row, written in enumerate(out[:, longest:].tolist()):
            stop = next((place for place, token in enumerate(written) if token in stops), None)
            yield Written(chosen[row // samples], written[:stop], stop is not None)
