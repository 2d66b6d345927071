"""Vectors of texts from a model's own tokens, and the nearest of many."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

from core.errors import InputError
from phase4_serve.index import Index, put_all
from phase4_serve.retrieve import Around, candidates, search
from phase4_serve.vectors import DIM, Rows, TextVectors, of_model, packed
from phase4_serve.vocabulary import Vocabulary
from phase4_serve.workspace import Source

VOCABULARY, WIDTH = 512, 256


def ids(text: str) -> list[int]:
    return [byte + 1 for byte in text.encode()]


def table(path: Path, kind: Type = Type.F32, name: str = "token_embd.weight", width: int = WIDTH) -> tuple[Path, np.ndarray]:
    """A GGUF that holds nothing but a table, and the table."""
    values = np.random.default_rng(3).normal(0, 1, (VOCABULARY, width)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_tensor(name, values if kind == Type.F32 else quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, values


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q5_0, Type.Q5_1, Type.Q4_0, Type.Q4_1])
def test_rows_are_read_as_gguf_reads_the_whole(tmp_path: Path, kind: Type) -> None:
    path, values = table(tmp_path / "t.gguf", kind)
    whole = values if kind == Type.F32 else quants.dequantize(quants.quantize(values, kind), kind)
    wanted = np.array([0, 7, 511, 7])
    assert np.array_equal(TextVectors(path, ids)._table(wanted), whole[wanted])


def test_vectors_are_unit_rows_whatever_the_text(tmp_path: Path) -> None:
    vectors = TextVectors(table(tmp_path / "t.gguf")[0], ids)
    found = vectors.embed(["def f(x): return x", "", "+++", "π 😀 \ud800", "x" * 100_000, "a b " * 50_000, "\0"])
    assert found.shape == (7, vectors.dim) and found.dtype == np.float32 and vectors.dim <= DIM
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    assert vectors.embed([]).shape == (0, vectors.dim)


def test_the_same_text_is_the_same_vector_in_any_company(tmp_path: Path) -> None:
    path, _ = table(tmp_path / "t.gguf")
    one, other = TextVectors(path, ids), TextVectors(path, ids)
    other.embed([f"word{n} other{n}" for n in range(2000)])
    texts = ["parse_http_header raw", "geometry of triangles", *(f"w{n} " * (n + 1) + f"{n}" * n for n in range(60))]
    assert np.array_equal(one.embed(texts), other.embed([*reversed(texts), "more"])[-2::-1])


def test_words_encoded_together_are_what_each_is_alone(tiny: Path) -> None:
    vocabulary = Vocabulary(tiny)
    words = ["parse", "Header", "é", "naïve", "日本語", "123", "x" * 200, "Ⅷ", "½", "ª", "der", "_", "+ +", "\ud800", "\n", "a b"]
    words += [f"word{'x' * (n % 7)}" for n in range(600)]
    plain = [word for word in words if word.isalnum()]
    for some in (words, plain, plain[:1]):
        ids, sizes = vocabulary.ids_of(some)
        wanted = [vocabulary.ids(f" {word}") for word in some]
        assert ids.tolist() == [token for one in wanted for token in one] and sizes.tolist() == list(map(len, wanted))


def test_shared_words_are_likeness(tmp_path: Path) -> None:
    vectors = TextVectors(table(tmp_path / "t.gguf")[0], lambda text: [hash_of(text) % VOCABULARY])
    a, b, c = vectors.embed(["parse the header of a request", "header parse request", "area of triangle height"])
    assert a @ b > a @ c + 0.2


def hash_of(text: str) -> int:
    return sum((at + 1) * byte * 31 for at, byte in enumerate(text.encode()))


@pytest.mark.parametrize("bad", ["missing", "empty", "cut", "other", "text"])
def test_a_file_without_a_table_is_one_clear_line(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "t.gguf"
    if bad == "other":
        table(path, name="output.weight")
    elif bad == "cut":
        table(path)
        path.write_bytes(path.read_bytes()[:60])
    elif bad != "missing":
        path.write_bytes(b"" if bad == "empty" else b"no model at all")
    with pytest.raises(InputError, match="--model"):
        TextVectors(path, ids)


def test_nearest_is_what_comparing_all_finds() -> None:
    random = np.random.default_rng(5)
    centres = random.normal(0, 1, (60, 192)).astype(np.float32)
    vectors = np.repeat(centres, 20, axis=0) + 0.5 * random.normal(0, 1, (1200, 192)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = Rows(192)
    for file in range(120):
        rows.add(file + 1, range(file * 10, file * 10 + 10), packed(vectors[file * 10 : file * 10 + 10]))
    for at in range(0, 1200, 97):
        found = [number for number, _ in rows.nearest(vectors[at], 10)]
        best = np.argsort(-(vectors @ vectors[at]))[:10].tolist()
        assert found[0] == at and len(set(found) & set(best)) >= 9
    for file in range(1, 61):
        rows.remove(file)
    assert len(rows) == 600 and all(number >= 600 for number, _ in rows.nearest(vectors[5], 50))
    rows.add(500, range(5000, 6000), packed(vectors[:1000]))  # room is made, free rows are dropped
    assert len(rows) == 1600 and rows.nearest(vectors[7], 1)[0][0] == 5007 and rows.nearest(vectors[700], 1)[0][0] in (700, 5700)
    assert Rows(192).nearest(vectors[0], 5) == [] == rows.nearest(vectors[0], 0)


def test_an_index_with_vectors_finds_by_likeness(tiny: Path) -> None:
    index = Index(24, "hybrid", of_model(tiny))
    put_all(index, [Source("a.py", "python", "def triangle_area(base, height):\n    return base * height / 2\n"),
                    Source("b.py", "python", "def parse_header(raw):\n    return raw.split(':')\n")])  # fmt: skip
    text = "triangle area base height"
    assert index.like(text, 1)[0].piece.path == "a.py" and "likeness" in {found.via for found in search(index, "base of triangles", 4)}
    assert next(candidates(index, Around("area = triangle_area(base", "", "c.py"))).path == "a.py"
    index.remove("a.py")
    index.commit()
    assert [hit.piece.path for hit in index.like(text, 5)] == ["b.py"]
