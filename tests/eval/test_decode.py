"""Batched decoding with the truth as draft against transformers' own generate and forward, row by row."""

from itertools import takewhile

import pytest
import torch

from core import decode
from core.decode import Answer, Network, Question, TorchBatch, answer, batches
from core.fim import Hole

LIMIT = 10
HOLES = [
    Hole("def add(a, b):\n    ", "\n\nprint(add(1, 2))\n"),
    Hole("x", ""),
    Hole("", "import os\n"),
    Hole("class Point:\n    x: int = 0\n    y: int", "\n" * 3 + "def f(p: Point) -> int:\n    return p.x + p.y\n" * 3),
    Hole("s = 'naïve 你好 <|fim_middle|>'\n", "\r\n\tend"),
]
PROMPTS = [(hole, order) for hole in HOLES for order in ("spm", "psm")]


def generated(model, prompt, stops, limit=LIMIT):
    """What transformers writes greedily, without the stop; and which stop it was."""
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit, eos_token_id=sorted(stops) or None, pad_token_id=0
    )[0, len(prompt) :].tolist()
    return (out[:-1], out[-1]) if out and out[-1] in stops else (out, None)


def loss(model, question, end):
    """Nats of the truth and its end token from one plain pass."""
    ids = [*question.prompt, *question.middle, end]
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()
    at = range(len(question.prompt), len(ids))
    return -sum(float(logits[i - 1].log_softmax(-1)[ids[i]]) for i in at)


@pytest.fixture(scope="module")
def prompts(vocabulary):
    return [vocabulary.codec.prompt(hole, order) for hole, order in PROMPTS]


@pytest.fixture(scope="module")
def free(network_model, prompts):
    """What the model writes to the limit if nothing stops it."""
    return [generated(network_model, prompt, set())[0] for prompt in prompts]


@pytest.fixture(scope="module")
def questions(prompts, free, vocabulary):
    """Truths the model writes in full, in part, not at all, and beyond the limit; of different lengths."""
    other = vocabulary.codec.plain("return a + b\n    pass")
    drafts = [
        free[0],
        free[1][:4],
        free[2][:3] + other,
        other,
        other[:1],
        free[5] + other,
        free[6][:1] + other,
        other[:7],
        other * 3,
        free[9],
    ]
    return [Question(prompt, middle) for prompt, middle in zip(prompts, drafts, strict=True)]


@pytest.fixture(scope="module")
def network(base):
    from transformers import Qwen2ForCausalLM

    return Network.of(Qwen2ForCausalLM.from_pretrained(base, dtype=torch.float32))


def ask(network, questions, end, stops, rows, limit=LIMIT):
    answers = {}
    for batch in batches(questions, rows):
        some = [questions[i] for i in batch]
        answers |= dict(zip(batch, answer(TorchBatch(network, some, limit), some, end, stops, limit), strict=True))
    return [answers[i] for i in range(len(questions))]


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_without_a_stop_every_row_is_generates_to_the_limit(network, network_model, questions, free, vocabulary, rows):
    end = vocabulary.codec.tokens.end
    found = ask(network, questions, end, frozenset(), rows)
    assert [one.ids for one in found] == free
    assert {one.stop for one in found} == {"limit"} and {len(one.ids) for one in found} == {LIMIT}
    for one, question in zip(found, questions, strict=True):
        assert one.nats == pytest.approx(loss(network_model, question, end), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_every_row_stops_where_generate_does(network, network_model, questions, free, rows):
    """End and markers are tokens that this model does write, so rows stop at different steps: in the pass, after it, at once."""
    end, markers = free[0][4], {free[3][2], free[8][6], free[5][0]}
    stops = frozenset({end, *markers})
    some = [q._replace(middle=list(takewhile(lambda token: token not in stops, q.middle))) for q in questions]  # a truth holds none
    found = ask(network, some, end, stops, rows)
    for one, question in zip(found, some, strict=True):
        ids, stop = generated(network_model, question.prompt, stops)
        assert one.ids == ids
        assert one.stop == ("limit" if stop is None else "end" if stop == end else "marker")
        assert one.nats == pytest.approx(loss(network_model, question, end), rel=1e-5)
    assert {"end", "marker"} <= {one.stop for one in found}
    assert len({len(one.ids) for one in found}) > 2


@pytest.mark.parametrize("limit", [1, 2, 64])
def test_any_limit(network, network_model, questions, vocabulary, limit):
    end, stops = vocabulary.codec.tokens.end, vocabulary.stops
    found = ask(network, questions[:6], end, stops, 6, limit)
    assert [one.ids for one in found] == [generated(network_model, q.prompt, stops, limit)[0] for q in questions[:6]]


def test_a_model_that_ends_right_after_the_truth_says_end(network, questions, free):
    """The token after the whole truth is read from the same pass that gives its loss."""
    row, at = next((row, at) for row, ids in enumerate(free) for at in range(2, LIMIT) if ids[at] not in ids[:at])
    question, end = Question(questions[row].prompt, free[row][:at]), free[row][at]
    assert ask(network, [question], end, {end}, 1)[0][:2] == (free[row][:at], "end")


def test_batches_hold_every_row_once_longest_first():
    questions = [Question([0] * p, [1] * m) for p, m in [(3, 2), (50, 1), (9, 33), (9, 2), (1, 40)]]
    found = batches(questions, 2)
    assert sorted(i for batch in found for i in batch) == list(range(5)) and [len(b) for b in found] == [2, 2, 1]
    assert found[0] == [2, 4]
    assert batches([], 4) == []


def test_the_cache_never_moves(network, questions, vocabulary):
    """Room is set aside once: prompt, truth and answer fit it exactly."""
    batch = TorchBatch(network, questions[:3], LIMIT)
    answer(batch, questions[:3], vocabulary.codec.tokens.end, frozenset(), LIMIT)
    assert all(layer.used <= layer.room for layer in batch.layers)
    assert isinstance(decode.answer(TorchBatch(network, questions[:1], 1), questions[:1], 0, frozenset(), 1)[0], Answer)


def test_a_model_is_the_same_after_it_was_asked(network, questions, vocabulary):
    """Training goes on with a model that is asked in between: names, forward passes and weights stay."""
    names, block = sorted(name for name, _ in network.body.named_modules()), network.last
    ids = torch.tensor([questions[0].prompt])
    with torch.inference_mode():
        before = network.body(input_ids=ids).last_hidden_state
        answer(TorchBatch(network, questions[:3], LIMIT), questions[:3], vocabulary.codec.tokens.end, frozenset(), LIMIT)
        after = network.body(input_ids=ids).last_hidden_state
    assert torch.equal(before, after)
    assert sorted(name for name, _ in network.body.named_modules()) == names and "forward" not in vars(block)


def test_rows_read_a_few_at_a_time_are_the_rows_read_at_once(network, questions, vocabulary, monkeypatch):
    end, stops = vocabulary.codec.tokens.end, vocabulary.stops
    monkeypatch.setattr(decode, "CPU_SLOTS", 10**9)
    at_once = ask(network, questions, end, stops, 10)
    for slots in (1, 500):
        monkeypatch.setattr(decode, "CPU_SLOTS", slots)
        found = ask(network, questions, end, stops, 10)
        assert [one[:2] for one in found] == [one[:2] for one in at_once]
        assert [one.nats for one in found] == pytest.approx([one.nats for one in at_once], rel=1e-5)
