"""From what stands around a cursor to the token ids of a prompt that the server's cache mostly holds already.

In:  `Ask`: prefix, suffix, path and what else a client sends along
Out: `Prompt`: ids, the rules for where the completion ends, figures

A place that is typed in is remembered as a `Session`: where its window begins and which pieces of other files it
shows. Both stay while typing goes on there; everything before the cursor's line is then the same tokens as before.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from core import scrub
from core.fim import Chunk, Codec, Hole, Order
from core.stops import Place
from core.syntax import lang_of
from phase4_serve import window
from phase4_serve.index import Index, Piece
from phase4_serve.params import ServeParams
from phase4_serve.retrieve import COPY, Around, as_chunks, candidates, fill, line_set, share
from phase4_serve.workspace import Workspace, looks_secret, relative

SESSIONS = 32  # places remembered
SAME_REGION = 0.5  # share of the lines around the cursor; above it the pieces stay
TELLING = 64  # characters that make a window's beginning unmistakable where no path is sent
LONGEST_NAME = 160  # characters of a path or repository name in a prompt
EXTRAS = 64  # pieces that a client may send along


class Ask(NamedTuple):
    """A place to complete; line breaks are \\n."""

    prefix: str
    suffix: str | None  # None: there is no hole, only text to go on with
    path: str = ""
    repo: str = ""
    extra: tuple[Chunk, ...] = ()
    order: Order | None = None  # None: the server's


class Prompt(NamedTuple):
    """What llama-server gets, and what we need to know to judge its answer."""

    ids: list[int]
    place: Place
    retrieval_seconds: float
    hole: Hole


@dataclass
class Session:
    """A place that is being typed in."""

    path: str
    start: str  # first characters of its window
    suffix: str
    lines: frozenset[str] = frozenset()  # around the cursor when the pieces were chosen
    pieces: list[Piece] = field(default_factory=list)


class Composer:
    """Makes prompts; used by one thread at a time."""

    def __init__(self, codec: Codec, params: ServeParams, workspace: Workspace | None, index: Index | None) -> None:
        self.codec, self.params, self.workspace, self.index = codec, params, workspace, index
        self.sessions: deque[Session] = deque(maxlen=SESSIONS)  # newest first

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.codec.plain(text))

    def compose(self, ask: Ask) -> Prompt:
        """The prompt for a place.

        Raises:
            BackendDown: there is nobody to encode the text.
        """
        path = relative(ask.path, self.workspace.root if self.workspace else None)[-LONGEST_NAME:]
        suffix = window.head(ask.suffix or "", self.params.suffix_tokens, self.count)
        session = self._session(ask.prefix, suffix, path)
        begin = window.begin(ask.prefix, self.params.prefix_tokens, self.count, session.start)
        prefix = ask.prefix[begin:]
        session.start, session.suffix, same_suffix = window.start_of(prefix), suffix, session.suffix == suffix
        started = time.perf_counter()
        pieces = self._pieces(session, Around(prefix, suffix, path), ask.extra, same_suffix)
        seconds = time.perf_counter() - started
        repo = (ask.repo or (self.workspace.name if self.workspace else ""))[:LONGEST_NAME]
        hole = Hole(prefix, suffix, path=path, repo=repo.replace("\n", " "), context=as_chunks(pieces))
        order: Order = "ltr" if ask.suffix is None else ask.order or self.params.order
        ids = self.codec.prompt(hole, order)
        if len(ids) + self.params.most_generated > self.params.ctx:  # long names in the header
            hole = Hole(prefix, suffix, path=path)
            ids = self.codec.prompt(hole, order)
        return Prompt(ids, Place.of(ask.prefix, ask.suffix or "", lang_of(path) if path else "python"), seconds, hole)

    def _session(self, prefix: str, suffix: str, path: str) -> Session:
        """The session of this place, moved to the front; a new one if none fits."""
        for session in self.sessions:
            telling = path or len(session.start) >= TELLING or (suffix and session.suffix == suffix)
            found = not session.start or window.find_line(prefix, session.start) is not None
            if session.path == path and telling and found:
                self.sessions.remove(session)
                break
        else:
            session = Session(path, "", suffix)
        self.sessions.appendleft(session)
        return session

    def _pieces(self, session: Session, around: Around, extra: tuple[Chunk, ...], same_suffix: bool) -> list[Piece]:
        """What of other files is shown: first what the client sent, then what the index finds."""
        budget = self.params.context_tokens
        if not budget:
            return []
        near = line_set(around.prefix) | line_set(around.suffix)
        sent = fill(self._sent(extra, near), budget, EXTRAS, self.count)
        left = budget - sum(1 + self.count(f"{p.path}\n{p.text}") for p in sent)
        if self.index is None:
            return sent
        stays = session.pieces and (same_suffix or share(session.lines, near) >= SAME_REGION)
        if not stays or not all(piece in self.index for piece in session.pieces):
            session.lines = near
            session.pieces = fill(candidates(self.index, around), left, self.params.max_chunks, self.count)
        return sorted([*sent, *fill(session.pieces, left, self.params.max_chunks, self.count)])

    def _sent(self, extra: tuple[Chunk, ...], near: frozenset[str]) -> list[Piece]:
        """Pieces from a client, masked like any file; none from a file that looks secret, no copies of the text around."""
        root = self.workspace.root if self.workspace else None
        named = [(relative(chunk.path, root), chunk.text) for chunk in extra[:EXTRAS]]
        safe = [Piece(path, 0, masked(text)) for path, text in named if text.strip() and not looks_secret(path or "x")]
        return sorted({piece for piece in safe if share(line_set(piece.text), near) <= COPY})


@lru_cache(256)
def masked(text: str) -> str:
    """The text without secrets; empty where the scrubber fails on it."""
    try:
        return scrub.mask(text)[0]
    except Exception:  # noqa: BLE001  whatever it trips over stays out of prompts
        return ""
