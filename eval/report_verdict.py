"""The first screen and the findings under it: did each step help, what ships, which file to use, how fast is it, does it leak.

In:  Summary, the verdicts of the gates, figures of the other phases
Out: blocks
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from eval.document import Block, Fact, Finding, Heading, StepRow
from eval.measures import BY_NAME
from eval.params import EvaluateParams
from eval.report_leakage import leaks_in_short
from eval.report_words import DASH, NAMES, figure, megabytes, number, order_name, p_value, shown, with_range
from eval.summary import Step, Summary
from eval.verdict import DECISIVE, tells

STEPS = {
    "sft": "Supervised fine-tuning",
    "dpo": "Preference optimization",
    "merged": "Merging the adapter into the base",
    "q4_k_m": "Quantizing to Q4_K_M",
}
SHIPS = {"base": "the bare base", "sft": "SFT", "dpo": "DPO"}
TONES = {"better": "good", "worse": "bad", "mixed": "bad"}
DEFAULT_FILE = "phase3_quantize/out/quantize/model-q4_k_m.gguf"
RECOMMENDED_FILE = "phase3_quantize/out/choose/recommended.gguf"


class Choice(NamedTuple):
    """Which file to use."""

    answer: str
    reason: str
    tone: str


def lead(summary: Summary, manifest: Mapping[str, Any], device: str) -> str:
    """What was asked of whom."""
    holes = manifest["counts"]["holes"]
    parts = " and ".join(f"{n:,} in {_split_words(split)}" for split, n in holes.items())
    return (
        f"{len(summary.models)} models on the same {sum(holes.values()):,} held-out holes: {parts}. Greedy, "
        f"{order_name(summary.scopes[0].order)} prompts, {device}. Changes are in points, brackets are 95% intervals."
    )


def _split_words(split: str) -> str:
    return {"test_file": "unseen files of known repositories", "test_repo": "unseen repositories"}.get(split, split)


def first_screen(
    summary: Summary, gates: list[dict[str, Any]], sizes: Mapping[str, int], params: EvaluateParams, found: Mapping[str, Any]
) -> Iterator[Block]:
    """A row per step, and four figures."""
    for step in (step for step in summary.steps if step.scope == summary.scopes[0]):
        yield row(summary, step)
    yield ships(summary, gates)
    yield recommended(choice(summary, params, sizes, found), sizes, found)
    yield speed(found.get("serve"))
    yield leaks_in_short(found.get("leakage"))


def row(summary: Summary, step: Step) -> StepRow:
    """One step of the chain."""
    exact, overrun = (step.differences[name] for name in ("exact_match", "overrun_rate"))
    changes = [(BY_NAME[name].label, with_range(d, BY_NAME[name], True)) for name, d in (("exact_match", exact), ("overrun_rate", overrun))]
    word = step.verdict if exact.n else "not measured"
    return StepRow(_name(summary, step), _against(step), word, TONES.get(word, "even"), changes)


def _name(summary: Summary, step: Step) -> str:
    whole = step.parent == summary.models[0] and step.child == summary.models[-1] and len(summary.models) > 2
    return "From the first model to the last" if whole else STEPS[step.child]


def _against(step: Step) -> str:
    return f"{NAMES[step.child]} against {NAMES[step.parent]}"


def ships(summary: Summary, gates: list[dict[str, Any]]) -> Fact:
    """What the gates of the training let through."""
    if not gates:
        return Fact("What ships", NAMES[summary.way[0]], "No gate was run after training.")
    refused = [record["gate"].upper() for record in gates if record["verdict"] == "ship parent"]
    told = f"The gate after {' and '.join(refused)} shipped the parent." if refused else "Every gate of the training let its child through."
    harmed = any(record.get("harms") for record in gates)
    return Fact(
        "What ships", SHIPS.get(gates[-1]["ships"], str(gates[-1]["ships"])), told, "bad" if harmed else "even" if refused else "good"
    )


def recommended(chosen: Choice, sizes: Mapping[str, int], found: Mapping[str, Any]) -> Fact:
    """The file to use, in a few words."""
    row = _recommended_row(found)
    size, bits = sizes.get("q4_k_m"), figure(found.get("quantize"), "quantized", "bits_per_weight")
    if chosen.answer == "recommended.gguf" and row:
        size, bits = int(row["bytes"]), figure(row, "bits_per_weight")
        fast = f"{shown(figure(row, 'generate_tps'))} tokens/s"
        return Fact(
            "File to use", f"{row['name']}, {megabytes(size)}", f"`{RECOMMENDED_FILE}`, {shown(bits, 2)} bits per weight; {fast}", "good"
        )
    if chosen.answer == "model-q4_k_m.gguf" and size:
        return Fact(
            "File to use",
            f"{made_as(found.get('quantize'), 'Q4_K_M')}, {megabytes(size)}",
            f"`{DEFAULT_FILE}`, {shown(bits, 2)} bits per weight",
            "good",
        )
    return Fact("File to use", chosen.answer, chosen.reason, chosen.tone)


def speed(served: Any) -> Fact:
    """How fast the server was, as the serve stage measured it."""
    first, late = (figure(served, "first_token_ms", "gateway_warm", end) for end in ("p50", "p95"))
    writes, cores = figure(served, "generated_per_second", "gateway"), figure(served, "cores")
    if first is None or writes is None:
        return Fact("Speed", "not measured", "`python -m phase4_serve smoke` measures it.")
    note = f"p95 {shown(late)} ms, prompt cached; writes {writes:,.0f} tokens/s on {shown(cores)} cores"
    return Fact("Speed of Q4_K_M, served", f"first token {first:.0f} ms", note)


def findings(summary: Summary, sizes: Mapping[str, int], params: EvaluateParams, found: Mapping[str, Any]) -> Iterator[Block]:
    """Every step in a sentence, and which file to use."""
    yield Heading("Why")
    for step in (step for step in summary.steps if step.scope == summary.scopes[0]):
        yield finding(summary, step)
    yield Finding("Which file to use", *choice(summary, params, sizes, found))


def finding(summary: Summary, step: Step) -> Finding:
    """One step of the chain in a sentence: by how much, how sure, and what would have been too small to see."""
    exact, likeness, overrun, loss = (step.differences[key] for key in (*DECISIVE, "loss"))
    question = f"{_name(summary, step)} ({_against(step)})"
    if not exact.n:
        return Finding(question, "not measured", "No hole was asked of both.", "even")
    if (exact.gained, exact.lost) == (0, 0) and not any([likeness.low, likeness.high, loss.low, loss.high]):
        return Finding(question, step.verdict, f"The same answers and the same loss on all {exact.n:,} holes.", "even")
    before, after = (
        number(summary.cells[model, step.scope]["exact_match"].value, BY_NAME["exact_match"]) for model in (step.parent, step.child)
    )
    text = (
        f"Exact match {before}% to {after}%: {with_range(exact, BY_NAME['exact_match'], True)} points, {exact.gained} holes gained and "
        f"{exact.lost} lost of {exact.n:,} (McNemar p {p_value(exact.p)}). Edit similarity "
        f"{with_range(likeness, BY_NAME['edit_similarity'], True)}, ran past the hole {with_range(overrun, BY_NAME['overrun_rate'], True)} "
        f"points. {why(step)} {about_loss(step)} A change of exact match under {number(exact.smallest_visible, BY_NAME['exact_match'])} "
        "points would not have shown."
    )
    return Finding(question, step.verdict, text, TONES.get(step.verdict, "even"))


def why(step: Step) -> str:
    """Which of the metrics that decide did, with their p adjusted for there being three."""
    seen = {name: sign for name in DECISIVE if (sign := tells(name, step.differences[name], step.p[name]))}
    told = ", ".join(
        f"{BY_NAME[name].label} ({'better' if sign > 0 else 'worse'}, p {p_value(step.p[name])})" for name, sign in seen.items()
    )
    return f"Decided by {told}." if told else "None of the three is visibly different."


def about_loss(step: Step) -> str:
    """The loss, which decides nothing, and what it means beside what is seen."""
    loss = step.differences["loss"]
    told = f"{with_range(loss, BY_NAME['loss'], True)} nats per token"
    sign = tells("loss", loss)
    if step.verdict.endswith("by loss only"):
        return f"Loss alone moved, {told}: completions are not visibly different."
    if (step.verdict, sign) in (("better", -1), ("worse", 1)):
        return f"Loss says the contrary, {told}: it weighs the truth's every token, a user sees what is written."
    return f"Loss {told}."


def choice(summary: Summary, params: EvaluateParams, sizes: Mapping[str, int], found: Mapping[str, Any]) -> Choice:
    """The quantized file unless a step on the way to it did visible harm; then what to set instead."""
    leading = [step for step in summary.steps if step.scope == summary.scopes[0]]
    steps = {step.child: step for step in reversed(leading)}  # the step from a model's own parent, which stands first
    harm = next(
        (steps[name] for name in reversed(summary.way) if name in ("sft", "dpo", "merged") and steps[name].verdict == "worse"), None
    )
    if harm and harm.parent == "base":
        return Choice("the base", "Fine-tuning did harm here. Set `merge.adapter: none` and run `dvc repro`, or train on more code.", "bad")
    if harm and harm.child == "dpo":
        reason = "Preference optimization did harm its gate did not see: set `merge.adapter: sft`, run `dvc repro`."
        return Choice("the SFT model", reason, "bad")
    if harm:
        reason = "The merged model is worse than the adapter it holds. Set `merge.onto: nf4`, or `sft.bits: 16`, and run `dvc repro`."
        return Choice("none of them yet", reason, "bad")
    last = summary.models[-1]
    if last != "q4_k_m":
        return Choice(NAMES[last], "No quantized file was evaluated: add q4_k_m to `evaluate.models`.", "even")
    quantized = steps.get("q4_k_m")
    lost = -100 * quantized.differences["exact_match"].value if quantized else 0.0
    size = megabytes(sizes[last]) if last in sizes else "size unknown"
    if quantized and quantized.differences["exact_match"].visible and lost > params.max_gguf_loss_points:
        reason = f"Q4_K_M ({size}) loses {lost:.1f} points of exact match, more than `evaluate.max_gguf_loss_points` allows. "
        return Choice("a larger type", reason + "Set `quantize.type: Q8_0` and run `dvc repro`, or serve `model-f32.gguf`.", "bad")
    if summary.cells[last, summary.scopes[0]]["exact_match"].value == 0:
        return Choice("none of them, to type with", "No hole was completed exactly. The path works; the model is too weak.", "bad")
    return _by_measurement(size, found)


def _by_measurement(size: str, found: Mapping[str, Any]) -> Choice:
    """What the stage `choose` measured decides between quantizations; without it the named default is used."""
    row, chosen = _recommended_row(found), found.get("choose") or {}
    bits = figure(found.get("quantize"), "quantized", "bits_per_weight")
    named = f"{size}, {shown(bits, 3)} bits per weight." if bits else f"{size}."
    if row and row["name"] != made_as(found.get("quantize"), chosen.get("default")):
        reason = f"`{RECOMMENDED_FILE}` ({row['name']}, {megabytes(row['bytes'])}): {chosen.get('reason', DASH)}. "
        return Choice("recommended.gguf", f"{reason}The named default, `{DEFAULT_FILE}`, has {named}", "good")
    measured = f" Kept after measuring the others: {chosen['reason']}." if row and chosen.get("reason") else ""
    return Choice("model-q4_k_m.gguf", f"`{DEFAULT_FILE}`: {named}{measured}", "good")


def made_as(quantize: Any, default: Any) -> str:
    """The name that `choose` gives to a file made as the shipped one was."""
    made = quantize if isinstance(quantize, Mapping) else {}
    weighed = isinstance(made.get("imatrix"), Mapping) and made["imatrix"].get("used")
    return f"{made.get('type', default)}{' + imatrix' if weighed else ''}"


def _recommended_row(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    chosen = found.get("choose") or {}
    rows = chosen.get("rows")
    named = [
        one for one in rows or () if isinstance(one, Mapping) and one.get("name") == chosen.get("recommended") and figure(one, "bytes")
    ]
    return named[0] if named else None
