"""Quantization in the report: what merging and quantizing cost, and which file is worth its size.

In:  manifest of merge, quantize.json, choose.json, any of them None
Out: blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.document import Bars, Block, Heading, Point, Scatter, Table, Text
from eval.report_words import DASH, figure, megabytes, missing, shown

CHECKS = {  # of quantize.json: keys, what they say, digits
    ("equality", "prompts"): ("prompts answered by the full file and by the model it was made of", 0),
    ("equality", "tokens"): ("tokens of them, all equal", 0),
    ("equality", "largest_logit_difference"): ("largest difference of a logit", 6),
    ("equality", "near_ties"): ("prompts that end at a tie of two tokens", 0),
    ("quantization", "middle_tokens"): ("tokens of middles on which the quantized file is compared", 0),
    ("quantization", "kl_mean"): ("KL divergence from the full file, mean, nats", 4),
    ("quantization", "kl_p99"): ("KL divergence, 99th percentile", 4),
    ("quantization", "same_best_token"): ("share of places with the same likeliest token", 3),
    ("quantization", "loss_f32"): ("loss of the full file, nats per token", 3),
    ("quantization", "loss_quantized"): ("loss of the quantized file", 3),
    ("stops_by_itself", "prompts"): ("prompts that the quantized file completes", 0),
    ("stops_by_itself", "share"): ("share of them that it ends by itself", 3),
    ("tokenizer_texts",): ("texts that tokenize as they do in Python", 0),
}


def quantization(merge: Mapping[str, Any] | None, made: Mapping[str, Any] | None, chosen: Mapping[str, Any] | None) -> Iterator[Block]:
    """All of it."""
    yield Heading("Quantization")
    yield from candidates(chosen)
    yield from merging((merge or {}).get("counts"))
    if not made:
        yield missing("Figures of quantization", "python -m phase3_quantize run")
        return
    yield from files(made)
    yield from checks(made.get("verify"))


def candidates(chosen: Mapping[str, Any] | None) -> Iterator[Block]:
    """The types that were tried: a plot, a table, one recommended line."""
    rows = [row for row in (chosen or {}).get("rows") or () if isinstance(row, Mapping) and figure(row, "bytes") and row.get("name")]
    if not chosen or not rows:
        yield missing("A comparison of the types", "python -m phase3_quantize choose")
        return
    best, default = chosen.get("recommended"), chosen.get("default")
    rows = sorted(rows, key=lambda row: (row["bytes"], row["name"]))
    yield Text(f"**Recommended: {best}.** {_sentence(str(chosen.get('reason', '')))} The named default is {default}.")
    yield Scatter(
        "Size against divergence from the full model",
        "MB",
        "KL, mean nats per token",
        [_point(str(at + 1), row, best, default) for at, row in enumerate(rows) if figure(row, "kl_mean")],
        "Left and down is better. The numbers are those of the table; named: the recommended file and the default.",
    )
    yield _table(rows, best, default)
    yield Text(
        f"KL divergence and equal first choices are measured on {chosen.get('tokens', 0):,} tokens of {chosen.get('holes', 0):,} held-out "
        "middles, exact match on the same holes. On the front: no other file is both smaller and closer."
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def _point(key: str, row: Mapping[str, Any], best: Any, default: Any) -> Point:
    tone = "good" if row["name"] == best else "one" if row["name"] == default else "even"
    told = f"{row['name']}: {megabytes(row['bytes'])}, KL {row['kl_mean']:.4f}"
    return Point(key, str(row["name"]), row["bytes"] / 1e6, float(row["kl_mean"]), told, tone)


def _table(rows: Sequence[Mapping[str, Any]], best: Any, default: Any) -> Table:
    columns: list[tuple[str, str, int, float]] = [
        ("bits per weight", "bits_per_weight", 2, 1), ("KL, mean", "kl_mean", 4, 1), ("KL, p99", "kl_p99", 3, 1),
        ("same first choice, %", "same_top1", 1, 100), ("exact match, %", "exact", 1, 100), ("prompt, tokens/s", "prompt_tps", 0, 1),
        ("written, tokens/s", "generate_tps", 0, 1), ("first token, ms", "ttft_ms", 1, 1), ("memory, MB", "memory_mb", 0, 1),
    ]  # fmt: skip

    def cells(row: Mapping[str, Any]) -> list[str]:
        values = [(figure(row, key), digits, scale) for _, key, digits, scale in columns]
        return [shown(None if value is None else value * scale, digits) for value, digits, scale in values]

    def said(row: Mapping[str, Any]) -> str:
        words = (
            ["recommended"] * (row["name"] == best) + ["default"] * (row["name"] == default) + ["on the front"] * bool(row.get("pareto"))
        )
        return ", ".join(words)

    head = ["", "#", "size", *(name for name, *_ in columns), ""]
    return Table(
        head, [[str(row["name"]), str(at + 1), megabytes(row["bytes"]), *cells(row), said(row)] for at, row in enumerate(rows)], (12,)
    )


def merging(counts: Any) -> Iterator[Block]:
    """Onto which weights the adapter was merged, and how close either is to the model as it was trained."""
    if not isinstance(counts, Mapping) or "onto" not in counts:
        return
    measured, onto = counts.get("measured"), counts["onto"]
    if onto is None:
        yield Text("Nothing was merged: the base ships as it is.")
        return
    if not isinstance(measured, Mapping):
        yield Text(f"The adapter was merged onto the {_onto(onto)}; the other way was not measured.")
        return
    told = ", ".join(f"{shown(figure(measured, way, 'kl_mean'), 6)} onto the {_onto(way)}" for way in ("nf4", "full") if measured.get(way))
    rows, tokens = (shown(figure(measured, key)) for key in ("rows", "tokens"))
    yield Text(
        f"Merging: mean KL divergence from the model as it was trained {told}, nats per token on {rows} held-out rows ({tokens} tokens). "
        f"The {_onto(onto)} ship."
    )


def _onto(way: Any) -> str:
    return {"nf4": "dequantized NF4 weights", "full": "16-bit weights of the base"}.get(str(way), str(way))


def files(made: Mapping[str, Any]) -> Iterator[Block]:
    """Size, real bits per weight, and of which types the file is made."""
    full, small = (one if isinstance(one, Mapping) else {} for one in (made.get("f32"), made.get("quantized")))
    name = str(made.get("type", "quantized"))
    rows = [
        [kind, megabytes(one["bytes"]), shown(figure(one, "bits_per_weight"), 2), _tensors(one)]
        for kind, one in (("F32", full), (name, small))
        if figure(one, "bytes")
    ]
    if rows:
        yield Heading("The files", 3)
        yield Table(["file", "size", "bits per weight", "tensors"], rows, words=(3,))
    if figure(full, "bytes") and figure(small, "bytes"):
        yield Text(f"The quantized file is {100 * small['bytes'] / full['bytes']:.1f}% of the full one.")
    shares = small.get("weight_shares")
    if isinstance(shares, Mapping) and shares:
        parts = sorted(((str(kind), float(share)) for kind, share in shares.items()), key=lambda part: -part[1])
        yield Bars("Weights by type", [(name, parts)], ", ".join(f"{kind} {100 * share:.1f}%" for kind, share in parts) + ".")
    weighed = made.get("imatrix")
    if isinstance(weighed, Mapping) and weighed.get("used"):
        rows_seen, tokens = (shown(figure(weighed, key)) for key in ("rows", "tokens"))
        yield Text(f"Columns were weighed by their importance on {rows_seen} training rows ({tokens} tokens).")
    yield from fallbacks([one for one in small.get("fallbacks") or () if isinstance(one, Mapping)] if small else None)


def fallbacks(fell: Sequence[Mapping[str, Any]] | None) -> Iterator[Block]:
    """Tensors that could not take the type that was wanted, and why."""
    if fell:
        yield Heading("Fallbacks", 3)
        keys = ("tensors", "columns", "wanted", "type", "cause")
        yield Table(
            ["", "columns", "wanted", "given", "cause"], [[str(one.get(key, DASH)) for key in keys] for one in fell], words=(2, 3, 4)
        )
    elif fell is not None:
        yield Text("No tensor had to fall back to another type.")


def _tensors(one: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in (one.get("tensors") or {}).items())


def checks(verify: Any) -> Iterator[Block]:
    """What the files were held against."""
    rows = [[told, shown(value, digits)] for keys, (told, digits) in CHECKS.items() if (value := figure(verify, *keys)) is not None]
    if rows:
        yield Heading("Verification", 3)
        yield Table(["check", DASH], rows)
