"""Ask every model of the chain for every held-out hole.

In:  samples/test_*.parquet, the models of phases 2 and 3
Out: rows/<model>.parquet, one row per hole and order; manifest.json

Greedy, the same prompts for all, nothing cut from a completion before it is judged.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from core import scrub
from core.decode import Answer, batches
from core.manifest import Run, versions_of
from core.progress import track
from core.records import Row
from eval import gguf_model, holes, metrics, models
from eval.holes import Asked, Vocabulary
from eval.params import EvaluateParams
from eval.rows import Ledger

JUDGES = (gguf_model, holes, metrics, models)
CODE = (*sorted(Path(str(scrub.__file__)).parent.glob("*.py")), *(Path(str(module.__file__)) for module in JUDGES))
PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "llama-cpp-python", "tokenizers", "rapidfuzz")


def key_of(model: models.Model, asked: Sequence[Asked], params: EvaluateParams, device: str) -> str:
    """Hash of everything that shapes a model's rows."""
    code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in CODE]
    shape = [model.sha256, holes.digest(asked), params.max_new_tokens, params.batch, device, versions_of(PACKAGES), code]
    return hashlib.sha256(json.dumps(shape).encode()).hexdigest()


def row_of(asked: Asked, answer: Answer, vocabulary: Vocabulary) -> Row:
    """One answer, judged (rows.ROW)."""
    sample, hole = asked.held.row, asked.held.hole
    completion = vocabulary.tokenizer.decode(answer.ids, skip_special_tokens=False)
    score = metrics.score(hole, completion, sample["lang"], asked.held.around)
    return {
        **{key: sample[key] for key in ("sample_id", "file_id", "repo", "path", "split", "span_kind")},
        "order": asked.order,
        "completion": metrics.masked(completion),
        "stop": answer.stop,
        "n_written": len(answer.ids),
        "nats": round(answer.nats, 6),
        "n_tokens": len(asked.question.middle) + 1,
        "n_bytes": len(hole.middle.encode()),
        **score._asdict(),
    }


Answered = dict[str, tuple[str, list[Row]]]  # sha256 of weights -> the model that has answered with them, and its rows


def rows_of(
    model: models.Model,
    asked: Sequence[Asked],
    vocabulary: Vocabulary,
    ledger: Ledger,
    where: models.Machine,
    params: EvaluateParams,
    answered: Answered,
) -> list[Row]:
    """Rows of one model in the order of `asked`; goes on where an interrupted run stopped.

    The batches are those of an uninterrupted run, so that the figures are the same to the last digit. A model whose weights are, bit
    for bit, those of one in `answered` (a merge is, on a CPU, of the adapter that ships) gets that one's rows.
    """
    done = {f"{row['sample_id']} {row['order']}": row for row in ledger.started()}
    plan = batches([one.question for one in asked], params.batch)
    open_batches = [batch for batch in plan if any(asked[i].key not in done for i in batch)]
    room = max(len(one.question.prompt) + max(len(one.question.middle), params.max_new_tokens) for one in asked) + 1
    with models.opened(model, where, vocabulary.codec.tokens.end, vocabulary.stops, params.max_new_tokens, room) as (ask, weights):
        if weights is not None and weights in answered:
            same, rows = answered[weights]
            print(f"{model.name}: the weights of {same}, bit for bit; its answers are taken", file=sys.stderr, flush=True)
            return rows
        for batch in track(open_batches, model.name, unit=f"batches of {params.batch}"):
            answers = ask([asked[i].question for i in batch])
            found = [row_of(asked[i], one, vocabulary) for i, one in zip(batch, answers, strict=True)]
            ledger.add(found)
            done |= {f"{row['sample_id']} {row['order']}": row for row in found}
    rows = [done[one.key] for one in asked]
    if weights is not None:
        answered[weights] = (model.name, rows)
    return rows


def run(samples: Path, places: models.Places, out: Path, params: EvaluateParams) -> None:
    """Ask all models; rows that are there already under the same key are taken as they are.

    Raises:
        InputError: samples or models missing or damaged; names the command that makes them.
        MachineError: CUDA wanted and absent, llama-cpp-python or memory missing.
    """
    started, where = Run("evaluate", out), models.machine(params.device)
    chain, vocabulary = models.chain(params.models, places), Vocabulary.of(places.base)
    held, dropped = holes.read(samples, params.splits, params.holes)
    asked, too_long = holes.ask(held, params.orders, vocabulary, params.max_new_tokens, params.other_holes)
    answered: Answered = {}
    reused = [model.name for model in chain if answer_all(model, asked, vocabulary, out, where, params, answered)]
    counts = {
        "holes": dict(sorted(Counter(one.row["split"] for one in held).items())),
        "asked": len(asked),
        "left_out": dict(sorted((dropped + too_long).items())),
        "models": [{"name": m.name, "parent": m.parent, "bits": m.bits, "bytes": m.size, "sha256": m.sha256} for m in chain],
    }
    inputs = [samples / f"{split}.parquet" for split in params.splits]
    measured = {"reused": reused} if reused else None
    started.finish({"evaluate": params}, inputs, counts, PACKAGES, params.seed, where.reason, measured=measured)


def answer_all(
    model: models.Model,
    asked: Sequence[Asked],
    vocabulary: Vocabulary,
    out: Path,
    where: models.Machine,
    params: EvaluateParams,
    answered: Answered,
) -> bool:
    """See that a model's rows are there; True if they were already."""
    ledger = Ledger(out, model.name, key_of(model, asked, params, where.reason))
    if ledger.finished:
        return True
    ledger.finish(rows_of(model, asked, vocabulary, ledger, where, params, answered))
    return False
