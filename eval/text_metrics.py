"""How alike a completion and the truth are, as words: identifiers, BLEU-4, chrF.

In:  two texts and their language
Out: one number per pair, 0 to 1 or 0 to 100 as the field writes it

identifiers  CrossCodeEval (Ding et al. 2023, arXiv 2310.11248): words that are no keyword of the language, strings and comments taken
             out; F1 over the sets, and whether both have the same in the same order
bleu4        Papineni et al. 2002 per sentence, add-one smoothing above single tokens (Lin and Och 2004); tokens are words, numbers and
             single signs. Equal to sacrebleu's sentence_bleu(smooth_method="add-k", smooth_value=1, tokenize="none") on these tokens
chrf         Popovic 2015: characters, orders 1 to 6, beta 2, blanks left out. Equal to sacrebleu's sentence_chrf
"""

from __future__ import annotations

import functools
import keyword
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from core import grammars

CODE_TOKEN = re.compile(r"\w+|[^\w\s]")
IDENTIFIER = re.compile(r"(?<!\w)[^\W\d]\w*")
STRING = re.compile(
    r"\"\"\".*?\"\"\"|'''.*?'''|\"[^\"\\\n]*(?:\\.[^\"\\\n]*)*\"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'|`[^`\\]*(?:\\.[^`\\]*)*`", re.DOTALL
)
COMMENT = {"hash": re.compile(r"#[^\n]*"), "slash": re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)}
HASH = frozenset({"python", "shell", "ruby", "r", "perl"})
CSHARP = """abstract as base bool break byte case catch char checked class const continue decimal default delegate do double else enum
event explicit extern false finally fixed float for foreach goto if implicit in int interface internal is lock long namespace new null
object operator out override params private protected public readonly ref return sbyte sealed short sizeof stackalloc static string
struct switch this throw true try typeof uint ulong unchecked unsafe ushort using virtual void volatile while"""  # ECMA-334
LITERALS = frozenset({"true", "false", "null", "this", "super"})  # that grammars give a name instead of writing them out
BLEU_ORDER, CHRF_ORDER, BETA = 4, 6, 2


class Likeness(NamedTuple):
    """A completion beside the truth."""

    identifier_f1: float  # 0 to 1
    identifier_exact: bool
    bleu4: float  # 0 to 100
    chrf: float  # 0 to 100


def likeness(completion: str, middle: str, lang: str) -> Likeness:
    """All of them for one pair."""
    found, wanted = identifiers(completion, lang), identifiers(middle, lang)
    return Likeness(f1(found, wanted), found == wanted, bleu4(completion, middle), chrf(completion, middle))


@functools.cache
def keywords(lang: str) -> frozenset[str]:
    """Words that are no identifiers: of Python as its own list says, of a language with a grammar as that does."""
    if lang == "python":
        return frozenset(keyword.kwlist)
    if lang == "csharp":
        return frozenset(re.findall(r"\w+", CSHARP))
    return (grammars.keywords(lang) | LITERALS) if lang in grammars.LANGUAGES else frozenset()


def identifiers(text: str, lang: str) -> list[str]:
    """The identifiers of a piece of code in order, repeats too; a piece need not parse."""
    bare = COMMENT["hash" if lang in HASH else "slash"].sub(" ", STRING.sub(" ", text))
    return [word for word in IDENTIFIER.findall(bare) if word not in keywords(lang)]


def f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    """F1 over the sets; 1 where neither has any (CrossCodeEval gives such a row 0)."""
    ours, theirs = set(found), set(wanted)
    return 2 * len(ours & theirs) / (len(ours) + len(theirs)) if ours or theirs else 1.0


def _ngrams(items: Sequence[str] | str, order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(items[at : at + order]) for at in range(len(items) - order + 1))


def bleu4(completion: str, middle: str) -> float:
    """0 to 100."""
    ours, theirs = CODE_TOKEN.findall(completion), CODE_TOKEN.findall(middle)
    if not ours or not theirs:
        return 100.0 * (ours == theirs)
    logs = 0.0
    for order in range(1, BLEU_ORDER + 1):
        found = _ngrams(ours, order)
        hits, total = (found & _ngrams(theirs, order)).total(), found.total()
        smooth = order > 1
        if hits + smooth == 0:
            return 0.0
        logs += math.log((hits + smooth) / (total + smooth))
    brevity = min(0.0, 1 - len(theirs) / len(ours))
    return 100 * math.exp(logs / BLEU_ORDER + brevity)


def chrf(completion: str, middle: str) -> float:
    """0 to 100."""
    ours, theirs = "".join(completion.split()), "".join(middle.split())
    precision = recall = 0.0
    orders = 0
    for order in range(1, CHRF_ORDER + 1):
        found, wanted = _ngrams(ours, order), _ngrams(theirs, order)
        if found and wanted:
            hits = (found & wanted).total()
            precision, recall, orders = precision + hits / found.total(), recall + hits / wanted.total(), orders + 1
    if not orders or not precision + recall:
        return 100.0 * (ours == theirs)
    precision, recall = precision / orders, recall / orders
    return 100 * (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
