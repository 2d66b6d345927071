"""What is written is what the model says: decoding in a batch is decoding one by one, and every row has its own dice."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from core.fim import Hole
from phase2_train.generate import Ask, Settings, batches, sampled, write
from phase2_train.rows import load_codec

SETTINGS = Settings(samples=2, temperature=1.0, top_p=1.0, max_new_tokens=12, extra_tokens=4, continue_below=2.0, batch=3, seed=1)


@pytest.fixture(scope="module")
def model(base):
    return AutoModelForCausalLM.from_pretrained(base)


@pytest.fixture(scope="module")
def asks(base):
    codec = load_codec(base)
    holes = [Hole(f"x = {n}\n" * (n % 5 + 1) + "y =", "\n", " call(x)"[: n + 2]) for n in range(7)]
    return [Ask(str(n), codec.prompt(hole, "spm"), codec.plain(hole.middle)) for n, hole in enumerate(holes)]


def run(model, asks, tokens, **changes):
    seen = [one for batch in write(model, asks, tokens, SETTINGS._replace(**changes)) for one in batch]
    return sorted(seen)


def test_batching_changes_nothing_but_last_bits(model, asks, base):
    tokens = load_codec(base).tokens
    for one, other in zip(run(model, asks, tokens), run(model, asks, tokens, batch=1), strict=True):
        assert one.end == pytest.approx(other.end, abs=1e-5) and one.written == other.written


def test_skipping_batches_leaves_the_others_as_they_are(model, asks, base):
    tokens = load_codec(base).tokens
    whole = list(write(model, asks, tokens, SETTINGS))
    assert list(write(model, asks, tokens, SETTINGS, skip=2)) == whole[2:]
    assert sorted(i for batch in batches(asks, 3) for i in batch) == list(range(7))


def test_a_continuation_is_the_likeliest_text_behind_the_truth_without_an_end_at_once(model, asks, base):
    tokens = load_codec(base).tokens
    for seen in run(model, asks, tokens):
        ask, (continued,) = asks[seen.place], [one for one in seen.written if one.at == len(asks[seen.place].middle)]
        ids = [*ask.prompt, *ask.middle]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        assert seen.end == pytest.approx(float(logits.softmax(-1)[tokens.end]), abs=1e-5)
        logits[list(tokens)] = -torch.inf
        assert continued.ids[: continued.at] == ask.middle and continued.ids[continued.at] == int(logits.argmax())
        assert len(continued.ids) - continued.at <= SETTINGS.extra_tokens


def test_samples_stop_a_little_past_the_truth(model, asks, base):
    for seen in run(model, asks, load_codec(base).tokens):
        for one in seen.written[:2]:
            assert one.at == 0 and (one.ended or len(one.ids) == min(12, len(asks[seen.place].middle) + 4))


def test_almost_no_temperature_is_greedy(model, asks, base):
    tokens = load_codec(base).tokens
    for seen in run(model, asks[:3], tokens, temperature=1e-4):
        first, second = seen.written[:2]
        assert first == second
        ids = list(asks[seen.place].prompt)
        for token in first.ids:
            with torch.no_grad():
                assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
            ids.append(token)


def test_sampling_takes_the_shares_it_is_given():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    shares = logits.softmax(-1)[0]
    taken = [sampled(logits, [(n + 0.5) / 1000], 1.0, 1.0)[0] for n in range(1000)]
    for token in range(4):
        assert taken.count(token) / 1000 == pytest.approx(float(shares[token]), abs=2e-3)
    assert {sampled(logits, [n / 100], 1.0, 0.6)[0] for n in range(100)} == {0}, "the nucleus of 0.6 is the first token"
    assert {sampled(logits, [n / 100], 1.0, 0.7)[0] for n in range(100)} == {0, 1}
    assert sampled(logits, [None], 1.0, 1.0) == [0]
