"""A GGUF in float32 is the model it was made of: the same answers, the same loss."""

import pytest

from core.errors import InputError
from eval import models
from eval.gguf_model import SEQUENCES, GgufModel
from eval.holes import ask, read
from eval.models import Model


@pytest.fixture(scope="module")
def questions(samples, vocabulary):
    """More rows than the GGUF holds sequences."""
    held, _ = read(samples, ["test_file", "test_repo"], 0)
    asked, _ = ask(held, ["spm", "psm"], vocabulary, 16)
    found = [one.question for one in asked]
    assert len(found) > 2 * SEQUENCES
    return found


def answers(name, folder, questions, stops, limit):
    """Of one model through the door that the stage uses."""
    room = max(len(q.prompt) + max(len(q.middle), limit) for q in questions) + 1
    with models.opened(Model(name, None, (folder,), 16), models.machine("any"), min(stops), stops, limit, room) as asked:
        return asked.ask(questions)


@pytest.mark.parametrize("limit", [1, 12])
def test_answers_and_loss_are_those_of_the_hugging_face_model(base, gguf, questions, vocabulary, limit):
    theirs, ours = (answers(name, at, questions, vocabulary.stops, limit) for name, at in (("base", base), ("q4_k_m", gguf)))
    assert [(one.ids, one.stop) for one in ours] == [(one.ids, one.stop) for one in theirs]
    assert [one.nats for one in ours] == pytest.approx([one.nats for one in theirs], rel=2e-4)


def test_rows_stop_each_at_their_own_token(base, gguf, questions, vocabulary):
    free = answers("base", base, questions[:9], vocabulary.stops, 8)
    stops = frozenset({free[0].ids[3], free[4].ids[5], free[8].ids[0]})
    some = [q._replace(middle=[t for t in q.middle if t not in stops]) for q in questions[:9]]
    theirs, ours = (answers(name, at, some, stops, 8) for name, at in (("base", base), ("q4_k_m", gguf)))
    assert [(one.ids, one.stop) for one in ours] == [(one.ids, one.stop) for one in theirs]
    assert len({one.stop for one in ours}) > 1


def test_a_file_that_is_no_gguf_is_one_line(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(InputError, match="python -m phase3_quantize quantize"):
        GgufModel(tmp_path / "model.gguf", 64)
