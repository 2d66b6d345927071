"""Pieces of the workspace's files, found again by the identifiers they hold, the names they define, and by likeness.

In:  masked files, or what `prepare` made of them in another process; identifiers around a cursor
Out: `Piece`s with a score

Identifiers are indexed whole and by their parts: `parseHttpHeader` and `parse_http_header` meet in `parse`, `http`,
`header`. Texts are kept compressed beside the terms, in tantivy's own store: nothing per piece is a Python object. The
index lives in memory and nothing of it is ever written to a disk.
"""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import tantivy

from core.syntax import chunks
from phase4_serve.definitions import defined, imported
from phase4_serve.vectors import Embedding, Rows, packed
from phase4_serve.workspace import Source

if TYPE_CHECKING:
    from phase4_serve.embedder import Embedder

IDENTIFIER = re.compile(r"[^\W\d]\w+")
PART = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
LONGEST_TERM = 64  # characters
REMEMBERED = 65_536  # identifiers whose parts are known
WRITER_BYTES = 15_000_000  # tantivy takes no less
MOST_COMMON = 0.2  # share of all pieces; a term in more of them tells nothing and costs the most
EVERYWHERE = 500  # pieces below which no term counts as common
FILES_A_COMMIT = 200
SAVES = 64  # times that a piece may have been replaced before segments are merged: until then a frequency counts the old ones
UNSEEN = 0.1  # share of the files that a service for vectors may not have seen yet when it is asked


Mode = Literal["bm25", "definitions", "hybrid"]


class Piece(NamedTuple):
    """Lines of a file."""

    path: str
    line: int  # from 0
    text: str


class Hit(NamedTuple):
    """A piece, and how well it answers."""

    piece: Piece
    score: float
    number: int = -1  # the index's name for it


class Entry(NamedTuple):
    """A piece as it goes into the index."""

    line: int
    text: str
    terms: str  # separated by blanks
    defines: str  # names, separated by blanks
    vector: bytes = b""  # of vectors.Embedding.pack


class File(NamedTuple):
    """A file as it goes into the index."""

    path: str
    imports: dict[str, str]  # name to module
    entries: list[Entry]


class _Expanded(dict[str, str]):
    """Identifiers, lower case, with their parts behind them where they have several; half the time of an lru_cache."""

    def __missing__(self, name: str) -> str:
        if len(self) >= REMEMBERED:
            self.clear()
        cut = name[:LONGEST_TERM]
        parts, whole = PART.findall(cut), cut.lower()
        found = " ".join([whole, *(part.lower() for part in parts if len(part) > 1)]) if len(parts) > 1 else whole
        if len(name) <= LONGEST_TERM:
            self[name] = found
        return found


_expanded = _Expanded()


def joined(text: str) -> str:
    """Identifiers in order, lower case, each followed by its parts where it has several; separated by blanks."""
    return " ".join(map(_expanded.__getitem__, IDENTIFIER.findall(text)))


def terms(text: str) -> list[str]:
    """The same, one by one."""
    return joined(text).split()


def pieces(source: Source, max_lines: int) -> list[Piece]:
    """The file's functions, classes and runs of lines."""
    found, line, at = [], 0, 0
    for span in chunks(source.text, source.lang, max_lines):
        line += source.text.count("\n", at, span.start)
        at = span.start
        found.append(Piece(source.path, line, source.text[span.start : span.end].rstrip() + "\n"))
    return found


def prepare(source: Source, max_lines: int, embedding: Embedding | None = None) -> File:
    """What the index needs of a file; all the work that can be done away from the process that answers."""
    found = pieces(source, max_lines)
    vectors = embedding.pack([piece.text for piece in found]) if embedding else itertools.repeat(b"")
    entries = [
        Entry(
            piece.line,
            piece.text,
            joined(f"{piece.path}\n{piece.text}"),
            " ".join(defined(piece.text, source.lang)),
            vector,
        )
        for piece, vector in zip(found, vectors, strict=False)
    ]
    return File(source.path, imported(source.text, source.lang), entries)


class Index:
    """BM25, definitions and, where there is an embedding, likeness over pieces; one thread may write while another asks."""

    def __init__(
        self, max_lines: int, mode: Mode = "definitions", embedding: Embedding | None = None, service: Embedder | None = None
    ) -> None:
        self.max_lines, self.mode, self.service = max_lines, mode, service
        schema = tantivy.SchemaBuilder()
        schema.add_unsigned_field("file", indexed=True, fast=True)
        schema.add_unsigned_field("number", indexed=True, fast=True)
        schema.add_unsigned_field("line", stored=True, fast=True)
        schema.add_bytes_field("text", stored=True)
        schema.add_text_field("terms", tokenizer_name="words", index_option="freq")
        schema.add_text_field("defines", tokenizer_name="words", index_option="basic")
        self._schema = schema.build()
        self._index = tantivy.Index(self._schema)
        self._index.register_tokenizer("words", tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
        self._index.config_reader("manual")  # on its own it would reload beside us, and one of two waits 100 ms for the other's lock
        self._writer = self._index.writer(WRITER_BYTES, 1)
        self._files, self._numbers = itertools.count(1), itertools.count(1)
        self._of_path: dict[str, int] = {}
        self._coming: dict[str, int] = {}  # put and not committed
        self._path_of: dict[int, str] = {}
        self._imports: dict[int, dict[str, str]] = {}
        self._count: dict[int, int] = {}
        self.embedding: Embedding | None = None
        self.rows: Rows | None = None  # by our own embedding
        self.service_rows: Rows | None = None  # by the service's
        self._bare: dict[int, None] = {}  # files that the service has not seen, in the order they came
        self._lock = threading.Lock()
        self._known: dict[tuple[int, Piece], bool] = {}
        if embedding:
            self.embed_by(embedding)

    def embed_by(self, embedding: Embedding) -> None:
        """Keep vectors of what is put from now on."""
        self.embedding, self.rows = embedding, Rows(embedding.dim)

    def __len__(self) -> int:
        count = self._count.copy()
        return sum(count.get(file, 0) for file in self._of_path.copy().values())

    def __contains__(self, piece: Piece) -> bool:
        """Whether a piece, or one that it is the beginning of, is still in a file."""
        file = self._of_path.get(piece.path)
        if file is None:
            return False
        known = self._known.get((file, piece))
        if known is None:
            if len(self._known) > 4096:
                self._known.clear()
            found = self._load(self._addresses("file", file, self._count.get(file, 0)))
            known = self._known[file, piece] = any(k.line == piece.line and k.text.startswith(piece.text) for k in found)
        return known

    @property
    def files(self) -> int:
        """Files that have at least one piece."""
        return len(self._of_path)

    @property
    def unseen(self) -> int:
        """Files that the service for vectors has not seen yet."""
        return len(self._bare)

    def paths(self) -> set[str]:
        """Of the files that have at least one piece."""
        return set(self._of_path.copy())

    def put(self, source: Source) -> None:
        """Add a file, or replace it; asked only after `commit`."""
        self.add(prepare(source, self.max_lines, self.embedding))

    def add(self, prepared: File) -> None:
        """Add a file that `prepare` made, or replace it: until `commit` it is found as it was."""
        if not prepared.entries:
            self.remove(prepared.path)
            return
        with self._lock:
            if (unseen := self._coming.pop(prepared.path, 0)) != 0:
                self._delete(unseen)
                self._forget(unseen)
            if (old := self._of_path.get(prepared.path, 0)) != 0:
                self._delete(old)
            file = next(self._files)
            numbers = [next(self._numbers) for _ in prepared.entries]
            try:
                self._write(file, numbers, prepared.entries)
                if self.rows is not None and prepared.entries[0].vector:
                    self.rows.add(file, numbers, [entry.vector for entry in prepared.entries])
            except Exception:
                self._delete(file)
                raise
            self._coming[prepared.path] = file
            self._path_of[file] = prepared.path
            self._count[file] = len(numbers)
            if prepared.imports:
                self._imports[file] = prepared.imports
            if self.service is not None:
                self._bare[file] = None

    def _write(self, file: int, numbers: Sequence[int], entries: Sequence[Entry]) -> None:
        for number, entry in zip(numbers, entries, strict=True):
            fields = {"file": file, "number": number, "line": entry.line, "text": entry.text.encode(), "terms": entry.terms}
            self._writer.add_document(tantivy.Document.from_dict({**fields, "defines": entry.defines}, self._schema))

    def remove(self, path: str) -> None:
        """Forget a file, and every file of a folder: none of it is found from now on."""
        with self._lock:
            known = (self._of_path, self._coming)
            single = any(path in some for some in known)
            for one in {path} if single else {p for some in known for p in some if p.startswith(f"{path}/")}:
                for file in (self._coming.pop(one, 0), self._of_path.pop(one, 0)):
                    if file:
                        self._delete(file)
                        self._forget(file)

    def commit(self) -> None:
        """Let questions see what was put and removed."""
        with self._lock:
            self._writer.commit()
            self._index.reload()
            coming, self._coming = self._coming, {}
            for path, file in coming.items():
                old, self._of_path[path] = self._of_path.get(path), file
                if old is not None:
                    self._forget(old)

    def imports(self, path: str) -> dict[str, str]:
        """What a file imports as it stands in the index: name to module."""
        return self._imports.get(self._of_path.get(path, 0), {})

    def search(self, words: Sequence[str], limit: int, without: str = "") -> list[Hit]:
        """The pieces that hold the words, best first; a word counts 1 / its place, so the first ones decide.

        Args:
            without: path of a file that is not looked for.
        """
        searcher = self._index.searcher()
        most = max(EVERYWHERE, MOST_COMMON * searcher.num_docs)
        asked = []
        for place, word in enumerate(dict.fromkeys(words), 1):
            if 0 < searcher.doc_freq("terms", word) <= most:
                term = tantivy.Query.term_query(self._schema, "terms", word, "freq")
                asked.append((tantivy.Occur.Should, tantivy.Query.boost_query(term, 1 / place)))
        if not asked or not limit:
            return []
        if (file := self._of_path.get(without)) is not None:
            asked.append((tantivy.Occur.MustNot, tantivy.Query.term_query(self._schema, "file", file)))
        return self._hits(searcher, searcher.search(tantivy.Query.boolean_query(asked), limit, count=False).hits)

    def defining(self, name: str, most: int) -> list[Hit]:
        """The pieces that define a name; none where more than `most` do."""
        searcher = self._index.searcher()
        if not 0 < searcher.doc_freq("defines", name) <= SAVES * most:
            return []
        query = tantivy.Query.term_query(self._schema, "defines", name, "basic")
        hits = self._hits(searcher, searcher.search(query, most + 1, count=False).hits)
        return hits if len(hits) <= most else []

    def like(self, text: str, limit: int, without: str = "") -> list[Hit]:
        """The pieces whose vector is nearest to the text's, best first, none of the file `without`; none where there are no vectors."""
        searcher = self._index.searcher()
        found = []
        for number, score in self._nearest(text, limit, self._of_path.get(without, 0)):
            query = tantivy.Query.term_query(self._schema, "number", number)
            found += [(score, address) for _, address in searcher.search(query, 1, count=False).hits]
        return self._hits(searcher, found)

    def _nearest(self, text: str, limit: int, without: int) -> list[tuple[int, float]]:
        """By the service where it answers at once and has seen nearly every file, else by our own embedding."""
        if self.service is not None and self.service_rows is not None and len(self._bare) <= UNSEEN * len(self._of_path):
            vector = self.service.query(text)
            if vector is not None:
                return self.service_rows.nearest(vector, limit, without)
        if self.embedding is None or self.rows is None:
            return []
        return self.rows.nearest(self.embedding.query(text), limit, without)

    def embed_next(self) -> bool:
        """Have the service see the next file that it has not seen; False where there is none.

        Raises:
            Failed: see Embedder.embed; the file stays unseen.
        """
        file = next(iter(self._bare.copy()), None)
        if self.service is None or file is None:
            return False
        searcher, found = self._addresses("file", file, self._count.get(file, 0))
        hits = self._hits(searcher, found)
        if hits:
            rows = packed(self.service.embed([hit.piece.text for hit in hits]))
        with self._lock:
            if file in self._path_of and not hits:
                self._bare[file] = self._bare.pop(file)  # not committed yet: last in the row
                return False
            self._bare.pop(file, None)
            if file in self._path_of:
                self.service_rows = self.service_rows or Rows(self.service.dim)
                self.service_rows.add(file, [hit.number for hit in hits], rows)
        return True

    def everything(self) -> Iterator[Piece]:
        """All pieces that a question may find; for audits."""
        searcher = self._index.searcher()
        hits = searcher.search(tantivy.Query.all_query(), max(1, searcher.num_docs), count=False).hits
        yield from (hit.piece for hit in self._hits(searcher, hits))

    def _addresses(self, field: str, value: int, limit: int) -> tuple[tantivy.Searcher, list[tuple[float, tantivy.DocAddress]]]:
        searcher = self._index.searcher()
        query = tantivy.Query.term_query(self._schema, field, value)
        return searcher, searcher.search(query, max(1, limit), count=False).hits

    def _load(self, found: tuple[tantivy.Searcher, list[tuple[float, tantivy.DocAddress]]]) -> list[Piece]:
        return [hit.piece for hit in self._hits(*found)]

    def _hits(self, searcher: tantivy.Searcher, found: Sequence[tuple[float, tantivy.DocAddress]]) -> list[Hit]:
        """Hits of addresses, without those of files that have changed since."""
        addresses = [address for _, address in found]
        if not addresses:
            return []
        files = searcher.fast_field_values("file", addresses)
        numbers = searcher.fast_field_values("number", addresses)
        hits = []
        for (score, address), file, number in zip(found, files, numbers, strict=True):
            path = self._path_of.get(int(file or 0))
            if path is not None:
                kept: Any = searcher.doc(address)
                hits.append(Hit(Piece(path, kept.get_first("line"), kept.get_first("text").decode()), score, int(number or 0)))
        return hits

    def _delete(self, file: int) -> None:
        """By query: tantivy-py 0.27's deletion by term finds no unsigned number."""
        self._writer.delete_documents_by_query(tantivy.Query.term_query(self._schema, "file", file))

    def _forget(self, file: int) -> None:
        for known in (self._path_of, self._imports, self._count, self._bare):
            known.pop(file, None)  # type: ignore[attr-defined]
        for rows in (self.rows, self.service_rows):
            if rows is not None:
                rows.remove(file)


def put_all(index: Index, sources: Iterable[Source], every: int = FILES_A_COMMIT) -> None:
    """Add many files; the first ones can be asked for before the last is read."""
    for count, source in enumerate(sources, 1):
        index.put(source)
        if count % every == 0:
            index.commit()
    index.commit()
