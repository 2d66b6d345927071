"""Pieces of the workspace's files, found again by the identifiers they hold.

In:  masked files; identifiers around a cursor
Out: `Piece`s with a BM25 score

Identifiers are indexed whole and by their parts: `parseHttpHeader` and `parse_http_header` meet in `parse`, `http`,
`header`. The index lives in memory.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import tantivy

from core.syntax import chunks
from phase4_serve.workspace import Source

IDENTIFIER = re.compile(r"[^\W\d]\w+")
PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
LONGEST_TERM = 64  # characters
WRITER_BYTES = 20_000_000  # tantivy takes no less than 15 MB


class Piece(NamedTuple):
    """Lines of a file."""

    path: str
    line: int  # from 0
    text: str


class Hit(NamedTuple):
    """A piece, and how well it answers."""

    piece: Piece
    score: float


def terms(text: str) -> Iterator[str]:
    """Identifiers in order, lower case, each followed by its parts where it has several."""
    for match in IDENTIFIER.finditer(text):
        name = match.group()[:LONGEST_TERM]
        yield name.lower()
        parts = PART.findall(name)
        if len(parts) > 1:
            yield from (part.lower() for part in parts if len(part) > 1)


def pieces(source: Source, max_lines: int) -> list[Piece]:
    """The file's functions, classes and runs of lines."""
    found, line, at = [], 0, 0
    for span in chunks(source.text, source.lang, max_lines):
        line += source.text.count("\n", at, span.start)
        at = span.start
        found.append(Piece(source.path, line, source.text[span.start : span.end].rstrip() + "\n"))
    return found


class Index:
    """BM25 over pieces; one thread may write while another asks."""

    def __init__(self, max_lines: int) -> None:
        self.max_lines = max_lines
        schema = tantivy.SchemaBuilder()
        schema.add_unsigned_field("number", stored=True, indexed=True)
        schema.add_text_field("terms", tokenizer_name="words", index_option="freq")
        self._schema = schema.build()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer("words", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
        self._writer = self._index.writer(WRITER_BYTES, 1)
        self._numbers = itertools.count()
        self._pieces: dict[int, Piece] = {}
        self._of_path: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pieces)

    def __contains__(self, piece: Piece) -> bool:
        """Whether a piece, or one that it is the beginning of, is still in a file."""
        known = (self._pieces.get(number) for number in self._of_path.get(piece.path, []))
        return any(k is not None and k.line == piece.line and k.text.startswith(piece.text) for k in known)

    @property
    def files(self) -> int:
        """Files that have at least one piece."""
        return len(self._of_path)

    def paths(self) -> set[str]:
        """Of the files that have at least one piece."""
        return set(self._of_path)

    def put(self, source: Source) -> None:
        """Add a file, or replace it; asked only after `commit`."""
        found = pieces(source, self.max_lines)
        with self._lock:
            self._forget(source.path)
            numbers = [next(self._numbers) for _ in found]
            for number, piece in zip(numbers, found, strict=True):
                self._pieces[number] = piece
                document = tantivy.Document()
                document.add_unsigned("number", number)
                document.add_text("terms", " ".join(terms(f"{piece.path}\n{piece.text}")))
                self._writer.add_document(document)
            if numbers:
                self._of_path[source.path] = numbers

    def remove(self, path: str) -> None:
        """Forget a file, and every file of a folder."""
        with self._lock:
            for known in [p for p in self._of_path if p == path or p.startswith(f"{path}/")]:
                self._forget(known)

    def commit(self) -> None:
        """Let questions see what was put and removed."""
        with self._lock:
            self._writer.commit()
            self._index.reload()

    def search(self, words: Sequence[str], limit: int) -> list[Hit]:
        """The pieces that answer best, best first."""
        if not words or not limit:
            return []
        asked = [(tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "terms", word, "freq")) for word in words]
        searcher = self._index.searcher()
        found = searcher.search(tantivy.Query.boolean_query(asked), limit).hits
        numbers = [(score, searcher.doc(address)["number"][0]) for score, address in found]
        with self._lock:
            return [Hit(self._pieces[number], score) for score, number in numbers if number in self._pieces]

    def _forget(self, path: str) -> None:
        for number in self._of_path.pop(path, []):
            self._pieces.pop(number, None)
            self._writer.delete_documents_by_term("number", number)


def put_all(index: Index, sources: Iterable[Source], every: int = 200) -> None:
    """Add many files; the first ones can be asked for before the last is read."""
    for count, source in enumerate(sources, 1):
        index.put(source)
        if count % every == 0:
            index.commit()
    index.commit()
