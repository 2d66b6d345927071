"""From what stands around a cursor to the token ids of a prompt that the server's cache mostly holds already.

In:  `Ask`: prefix, suffix, path and what else a client sends along
Out: `Draft`: ids in any order or from a smaller window, the rules for where the completion ends; `Prompt`: the whole one

A place that is typed in is remembered as a `Region`: where its window begins, the suffix below it and which pieces of other
files it shows. All three stay while typing goes on there; everything before the cursor's line is then the same tokens as
before. Regions of one client and file make a session: one person types in one place of it at a time.
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
from phase4_serve.params import SLACK, ServeParams
from phase4_serve.retrieve import COPY, Around, as_chunks, candidates, cost, fill, line_set, share
from phase4_serve.workspace import Workspace, looks_secret, relative

REGIONS = 64  # places remembered
SAME_REGION = 0.5  # share of the lines around the cursor; above it the pieces stay
BETTER = 1  # more pieces that only the new choice has than this, and it replaces the old one, once nobody types
TELLING = 64  # characters that make a window's beginning unmistakable where no path is sent
LONGEST_NAME = 160  # characters of a path or repository name in a prompt
EXTRAS = 64  # pieces that a client may send along
EARLY = 1.25  # multiple of the prefix's budget from which the next window is got ready
SMALL_SUFFIX = 0.25  # of a small window


class Ask(NamedTuple):
    """A place to complete; line breaks are \\n."""

    prefix: str
    suffix: str | None  # None: there is no hole, only text to go on with
    path: str = ""
    repo: str = ""
    extra: tuple[Chunk, ...] = ()
    order: Order | None = None  # None: the server's
    client: str = ""  # who asks (`user`, X-Session-Id); with the path it names an editing session
    automatic: bool = True  # False: somebody pressed a key for it; the trigger never declines that


class Prompt(NamedTuple):
    """What llama-server gets, and what we need to know to judge its answer."""

    ids: list[int]
    place: Place
    retrieval_seconds: float
    hole: Hole
    session: str = ""  # stable name of who types where: the scheduler's key


@dataclass(eq=False)
class Region:
    """A place that is being typed in."""

    session: str
    client: str
    path: str
    start: str = ""  # first characters of its window
    length: int = 0  # of its window
    suffix: str | None = None  # its window, as the client sent it
    lines: frozenset[str] = frozenset()  # around the cursor when the pieces were chosen
    pieces: list[Piece] | None = None  # of the index; None: not chosen yet
    extra: tuple[Chunk, ...] = ()  # what the client sent along
    sent: list[Piece] = field(default_factory=list)  # and what of it is shown
    coming: str = ""  # first characters of the window that it will jump to
    coming_length: int = 0
    small: str = ""  # first characters of its small window
    small_length: int = 0
    small_tokens: int = 0  # that it was made for: this machine's speed is learnt meanwhile
    small_suffix: str = ""
    last: tuple[str, str] | None = None  # prefix and suffix of the request before


class Draft:
    """One request's prompt, encoded as far as it is asked for."""

    def __init__(self, composer: Composer, ask: Ask, region: Region, begin: int, path: str, place: Place) -> None:
        self.composer, self.ask, self.region, self.begin, self.path, self.place = composer, ask, region, begin, path, place
        self.order: Order | None = "ltr" if ask.suffix is None else ask.order
        self.retrieval_seconds = 0.0

    @property
    def session(self) -> str:
        """Who types where."""
        return self.region.session

    @property
    def wants_pieces(self) -> bool:
        """Whether pieces of other files are still to be chosen: milliseconds of work that no event loop should wait for."""
        return self.region.pieces is None and self.composer.index is not None and self.composer.params.context_tokens > 0

    def around(self) -> Around:
        """The text around the cursor."""
        return Around(self.ask.prefix[self.begin :], self.region.suffix or "", self.path)

    def key(self) -> tuple[object, ...]:
        """What an answer depends on besides the text: if one of these changes, no remembered answer holds."""
        region = self.region
        return (self.session, region.suffix, tuple(region.pieces or ()), tuple(region.sent), self.order, self.ask.repo)

    def hole(self, begin: int | None = None, suffix: str | None = None, context: bool = True, pieces: list[Piece] | None = None) -> Hole:
        """What is shown to the model: secrets masked in whole lines, never in the cursor's."""
        prefix = self.ask.prefix[self.begin if begin is None else begin :]
        line = prefix.rfind("\n") + 1
        rest, newline, below = (self.region.suffix or "" if suffix is None else suffix).partition("\n")
        shown = sorted([*self.region.sent, *(self.region.pieces or () if pieces is None else pieces)]) if context else []
        return Hole(
            masked(prefix[:line]) + prefix[line:],
            rest + newline + masked(below),
            path=self.path,
            repo=self.composer.repo_of(self.ask),
            context=as_chunks(shown),
        )

    def ids(self, order: Order, hole: Hole | None = None) -> list[int]:
        """The prompt."""
        params, codec, hole = self.composer.params, self.composer.codec, hole or self.hole()
        order = "ltr" if self.ask.suffix is None else order
        ids = codec.prompt(hole, order)
        if len(ids) + params.most_generated > params.ctx:  # long names in the header
            ids = codec.prompt(Hole(hole.prefix, hole.suffix, path=hole.path), order)
        return ids

    def next_ids(self) -> list[int] | None:
        """The prompt whose window has jumped already; None while that is far off."""
        region, params, count = self.region, self.composer.params, self.composer.count
        prefix = self.ask.prefix
        if window.fits(prefix[self.begin :], params.prefix_tokens * EARLY, count):
            return None
        at = window.find_line(prefix, region.coming, region.coming_length)
        if at is None or at <= self.begin or not window.fits(prefix[at:], params.prefix_tokens * EARLY, count):
            at = window.fresh(prefix, params.prefix_tokens, count)
        region.coming, region.coming_length = window.start_of(prefix[at:]), len(prefix) - at
        return self.ids("spm", self.hole(begin=at)) if at > self.begin else None

    def move_on(self) -> None:
        """Jump to that window."""
        region = self.region
        region.start, region.length = region.coming, region.coming_length
        self.begin = len(self.ask.prefix) - region.coming_length

    def small_ids(self, tokens: int, context: bool, anew: bool = False) -> list[int]:
        """A prompt of about so many tokens besides the context's: what the nearest lines say. It grows while somebody types.

        Args:
            anew: begin another, as what was shown before is in no cache any more.
        """
        region, prefix, count = self.region, self.ask.prefix, self.composer.count
        at = window.find_line(prefix, region.small, region.small_length)
        if anew or at is None or at < self.begin or not window.fits(prefix[at:], max(tokens, region.small_tokens) * SLACK, count):
            region.small_tokens, region.small_suffix = tokens, window.head(region.suffix or "", int(tokens * SMALL_SUFFIX), count)
            at = max(self.begin, window.nearest(prefix, tokens - count(region.small_suffix), count))
        region.small, region.small_length = window.start_of(prefix[at:]), len(prefix) - at
        return self.ids("spm", self.hole(at, region.small_suffix, context))


class Composer:
    """Makes prompts; its regions belong to one thread, `choose` may run in another."""

    def __init__(self, codec: Codec, params: ServeParams, workspace: Workspace | None, index: Index | None) -> None:
        self.codec, self.params, self.workspace, self.index = codec, params, workspace, index
        self.regions: deque[Region] = deque(maxlen=REGIONS)  # newest first
        self._made = 0

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.codec.plain(text))

    def repo_of(self, ask: Ask) -> str:
        """The repository's name in a prompt."""
        return (ask.repo or (self.workspace.name if self.workspace else ""))[:LONGEST_NAME].replace("\n", " ")

    def compose(self, ask: Ask) -> Prompt:
        """The whole prompt for a place.

        Raises:
            BackendDown: there is nobody to encode the text.
        """
        draft = self.draft(ask)
        if draft.wants_pieces:
            self.choose(draft)
        hole = draft.hole()
        return Prompt(draft.ids(draft.order or self.default_order, hole), draft.place, draft.retrieval_seconds, hole, draft.session)

    @property
    def default_order(self) -> Order:
        """Of a prompt that nobody has said more about."""
        return "psm" if self.params.order == "psm" else "spm"

    def draft(self, ask: Ask) -> Draft:
        """Find the place again, or begin to remember it; what is slow is left to the draft's methods."""
        path = relative(ask.path, self.workspace.root if self.workspace else None)[-LONGEST_NAME:]
        region = self._region(ask, path)
        begin = window.begin(ask.prefix, self.params.prefix_tokens, self.count, region.start, region.length)
        if region.suffix is None or not window.stays(region.suffix, ask.suffix or ""):
            region.suffix = window.head(ask.suffix or "", self.params.suffix_tokens, self.count)
        prefix = ask.prefix[begin:]
        region.start, region.length = window.start_of(prefix), len(prefix)
        if region.extra != ask.extra:
            region.extra, region.sent = ask.extra, self._sent(ask.extra, _near(prefix, region.suffix))
        if region.pieces is not None and self.index and not all(piece in self.index for piece in region.pieces):
            region.pieces = None
        place = Place.of(ask.prefix, ask.suffix or "", lang_of(path) if path else "python")
        return Draft(self, ask, region, begin, path, place)

    def choose(self, draft: Draft) -> None:
        """Choose the pieces of other files that this place shows."""
        around, region = draft.around(), draft.region
        started = time.perf_counter()
        region.lines = _near(around.prefix, around.suffix)
        region.pieces = self._found(around, region.sent)
        draft.retrieval_seconds = time.perf_counter() - started

    def better(self, draft: Draft) -> list[Piece] | None:
        """Pieces that are clearly better than those shown; None where they may stay."""
        region = draft.region
        if region.pieces is None or self.index is None:
            return None
        found = self._found(draft.around(), region.sent)
        new = [piece for piece in found if piece not in region.pieces]
        return found if len(new) > BETTER or (new and not region.pieces) else None

    def _found(self, around: Around, sent: list[Piece]) -> list[Piece]:
        left = self.params.context_tokens - sum(cost(piece, self.count) for piece in sent)
        assert self.index is not None
        return fill(candidates(self.index, around), left, self.params.max_chunks, self.count)

    def _region(self, ask: Ask, path: str) -> Region:
        """The region of this place, moved to the front; a new one if none fits."""
        mine = [region for region in self.regions if (region.path, region.client) == (path, ask.client)]
        for region in mine:
            suffix_stays = window.stays(region.suffix or "", ask.suffix or "")
            at = window.find_line(ask.prefix, region.start, region.length)
            found = not region.start or at is not None
            telling = path or len(region.start) >= TELLING or (ask.suffix and suffix_stays)
            if telling and found and (suffix_stays or self._near_enough(region, ask, at or 0)):
                self.regions.remove(region)
                break
        else:
            region = self._new(ask, path, mine)
        self.regions.appendleft(region)
        return region

    def _near_enough(self, region: Region, ask: Ask, at: int) -> bool:
        """Whether the cursor has moved so little that the same pieces are worth showing."""
        if len(ask.prefix) - at > self.params.prefix_tokens * SLACK * window.LONGEST:
            return False
        begin = window.begin(ask.prefix, self.params.prefix_tokens, self.count, region.start, region.length)
        suffix = window.head(ask.suffix or "", self.params.suffix_tokens, self.count)
        return share(region.lines, _near(ask.prefix[begin:], suffix)) >= SAME_REGION

    def _new(self, ask: Ask, path: str, mine: list[Region]) -> Region:
        if path and mine:
            return Region(mine[0].session, ask.client, path)
        self._made += 1
        return Region(f"s{self._made}", ask.client, path)

    def _sent(self, extra: tuple[Chunk, ...], near: frozenset[str]) -> list[Piece]:
        """Pieces from a client, masked like any file; none from a file that looks secret, no copies of the text around."""
        root = self.workspace.root if self.workspace else None
        most = self.params.context_tokens * window.LONGEST  # no more can be shown; the scrubber takes seconds for a megabyte
        named = [(relative(chunk.path, root), chunk.text[:most]) for chunk in extra[:EXTRAS]]
        safe = [Piece(path, 0, masked(text)) for path, text in named if text.strip() and not looks_secret(path or "x")]
        wanted = sorted({piece for piece in safe if share(line_set(piece.text), near) <= COPY})
        return fill(wanted, self.params.context_tokens, EXTRAS, self.count)


def _near(prefix: str, suffix: str) -> frozenset[str]:
    return line_set(prefix) | line_set(suffix)


def mask_or_drop(text: str) -> str:
    """The text without secrets; empty where the scrubber fails on it."""
    try:
        return scrub.mask(text)[0]
    except Exception:  # noqa: BLE001  whatever it trips over stays out of prompts
        return ""


masked = lru_cache(512)(mask_or_drop)  # of windows: with every key the same lines come again
