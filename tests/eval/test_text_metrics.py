"""Text metrics: sacrebleu's figures to the last digit, CrossCodeEval's identifiers, and what must hold for any two texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.text_metrics import bleu4, chrf, f1, identifiers, keywords, likeness

TEXT = st.text(st.sampled_from("ab _1.()\n\"'é"), max_size=30)


@pytest.mark.parametrize(
    ("completion", "middle", "bleu", "characters"),
    [  # sacrebleu 2.6.0: sentence_bleu with add-k smoothing of 1 on the code tokens, sentence_chrf
        ("foo(a, b)", "foo(a, c)", 63.8943, 61.4881), ("x", "x", 100.0, 100.0), ("return x + 1", "return y", 31.9472, 67.2313),
        ("self.total += price", "self.total -= price * 2", 34.7870, 66.8137), ("a", "", 0.0, 0.0), ("", "abc", 0.0, 0.0),
        ("for i in range(10):\n    print(i)", "for item in items:\n    print(item)", 21.8342, 33.4575), ("zz", "qq", 0.0, 0.0),
    ],
)  # fmt: skip
def test_bleu_and_chrf_are_those_of_sacrebleu(completion, middle, bleu, characters):
    assert bleu4(completion, middle) == pytest.approx(bleu, abs=1e-4)
    assert chrf(completion, middle) == pytest.approx(characters, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "lang", "found"),
    [
        ("for item in self.items: # the rest\n", "python", ["item", "self", "items"]),
        ("print('a name', \"another\")", "python", ["print"]),
        ("x = f(0x1f, 1e5, _y2)", "python", ["x", "f", "_y2"]),
        ('"""doc of\nthings"""\nreturn None', "python", []),
        ("a) + b[", "python", ["a", "b"]),  # a piece need not parse
        ("const x = this.y; // z\n", "typescript", ["x", "y"]),
        ("for (int i = 0; /* j */ i < n; i++)", "java", ["i", "i", "n", "i"]),
        ("public string Name => name;", "csharp", ["Name", "name"]),
        ("größe = 1", "python", ["größe"]),
        ("fn f() {}", "cobol", ["fn", "f"]),  # of an unknown language every word counts
    ],
)
def test_identifiers_are_words_that_are_no_keyword(text, lang, found):
    assert identifiers(text, lang) == found


def test_keywords_come_from_the_language():
    assert {"def", "None"} <= keywords("python") and {"func", "chan"} <= keywords("go") and "print" not in keywords("python")
    assert not any(word.startswith("_") and word.endswith("repeat1") for word in keywords("rust"))


def test_f1_is_over_sets():
    assert f1(["a", "a", "b"], ["a"]) == pytest.approx(2 / 3) and f1([], []) == 1 and f1(["a"], []) == 0


@given(TEXT, TEXT)
def test_figures_stay_in_their_range_and_equal_texts_get_all(one, other):
    found = likeness(one, other, "python")
    assert 0 <= found.identifier_f1 <= 1 and 0 <= found.bleu4 <= 100.0001 and 0 <= found.chrf <= 100.0001
    same = likeness(one, one, "python")
    assert same.identifier_f1 == 1 and same.identifier_exact and same.bleu4 == pytest.approx(100) and same.chrf == pytest.approx(100)
