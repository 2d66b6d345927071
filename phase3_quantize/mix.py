"""Quantizations of our own: a type for each class of tensors, and how such a mix is found.

In:  how much KL divergence each class adds at each type, and how many weights it has
Out: the smallest mix that stays below a given divergence; MIXES, the two that were found

K-quants cut rows into blocks of 256 columns; where the columns are no multiple of that (896 in Qwen2.5-0.5B, 576 in SmolLM2-135M), Q4_K_M
becomes mostly Q5_0 and Q8_0. What that costs is spread unevenly. On SmolLM2-135M (columns permuted, see eval/permuted_gguf.py;
continuation of Python, importance from other Python; 960 tokens), KL that one class adds by itself, in thousandths of a nat:

                      share of weights   Q4_0  IQ4_NL   Q5_0
    attn_v                       2.5 %     55      20     13    a tenth of all harm from a fortieth of the weights
    ffn_down                      20 %     59      28     14
    ffn_up                        20 %     28      20      7
    ffn_gate                      20 %     16      11      3
    attn_output                    7 %      9       8      3
    attn_q                         7 %      6       3      1
    attn_k                       2.5 %      5       4      2
    token_embd (tied)             21 %      -       -     35    stays at Q8_0; Q5_1 would add 17

So the values get Q8_0, the way out of the feed-forward block Q5_K, whose 1,536 (in the 0.5B 4,864) columns fit, and IQ4_NL, as small as
Q4_0, goes where it hurts least. Both mixes are meant to be made with importance weights: without them their KL nearly doubles.
`python -m phase3_quantize measure --search` finds a mix for another model; `python -m eval quant-bench` gives the table for any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Ggml

Mix = Mapping[str, str]  # class of tensors to type

CAREFUL = {"attn_v": "Q8_0", "ffn_down": "Q5_K", "token_embd": "Q8_0", "output": "Q8_0"}
MIXES: dict[str, Mix] = {
    "MIX32_M": CAREFUL | {"attn_q": "Q5_0", "attn_k": "Q5_0", "attn_output": "Q5_0", "ffn_gate": "IQ4_NL", "ffn_up": "Q5_0"},
    "MIX32_S": CAREFUL | {"attn_q": "IQ4_NL", "attn_k": "IQ4_NL", "attn_output": "IQ4_NL", "ffn_gate": "IQ4_NL", "ffn_up": "IQ4_NL"},
}
MIXED = "mixed"  # a mix without a name
FILE_TYPES = dict.fromkeys((*MIXES, MIXED), "IQ4_NL")  # what llama.cpp shows them as
TRIED = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
SAFE = "Q8_0"  # what a class has while others are tried, and where nothing smaller will do
ATTEMPTS = 4


class Group(NamedTuple):
    """All matrices of a class."""

    weights: int
    columns: frozenset[int]

    def takes(self, kind: str) -> bool:
        """Whether the type's blocks fit them all."""
        return all(columns % GGML_QUANT_SIZES[Ggml[kind]][0] == 0 for columns in self.columns)


def bits(kind: str) -> float:
    """Bits per weight of a type."""
    block, width = GGML_QUANT_SIZES[Ggml[kind]]
    return 8 * width / block


def sensitivities(groups: Mapping[str, Group], divergence: Callable[[Mix], float]) -> dict[str, dict[str, float]]:
    """KL that each class adds at each type that fits it, while all others are at SAFE."""
    safe = dict.fromkeys(groups, SAFE)
    at_rest = divergence(safe)
    return {
        name: {SAFE: 0.0} | {kind: divergence({**safe, name: kind}) - at_rest for kind in TRIED if group.takes(kind)}
        for name, group in groups.items()
    }


def cheapest(added: Mapping[str, Mapping[str, float]], groups: Mapping[str, Group], allowed: float) -> dict[str, str]:
    """A small mix whose classes together add at most `allowed`: from the fewest bits, more go where they take away most KL per byte."""
    mix = {name: min(kinds, key=lambda kind: (bits(kind), kinds[kind])) for name, kinds in added.items()}
    while sum(added[name][kind] for name, kind in mix.items()) > allowed:

        def gain(step: tuple[str, str]) -> float:
            name, kind = step
            return (added[name][mix[name]] - added[name][kind]) / ((bits(kind) - bits(mix[name])) * groups[name].weights)

        steps = [(name, kind) for name, kinds in added.items() for kind in kinds if bits(kind) > bits(mix[name])]
        steps = [step for step in steps if gain(step) > 0]
        if not steps:
            break
        name, kind = max(steps, key=gain)
        mix[name] = kind
    return mix


def search(
    groups: Mapping[str, Group], divergence: Callable[[Mix], float], target: float
) -> tuple[dict[str, str], dict[str, dict[str, float]]]:
    """The smallest mix found with a divergence of at most `target`, and what each class adds.

    What classes add together is not quite the sum, so a mix is read whole and the sum allowed is corrected until it holds.
    """
    added = sensitivities(groups, divergence)
    at_rest = divergence(dict.fromkeys(groups, SAFE))
    allowed = target - at_rest
    for _ in range(ATTEMPTS):
        mix = cheapest(added, groups, allowed)
        found = divergence(mix)
        if found <= target:
            return mix, added
        allowed *= max(0.0, target - at_rest) / (found - at_rest)
    return dict.fromkeys(groups, SAFE), added
