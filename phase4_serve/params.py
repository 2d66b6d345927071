"""The section of params.yaml that phase 4 reads, and the values for a machine without that file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from core.params import StageParams

SLACK = 1.5  # a window grows to this multiple of its budget before it moves, so that the cache stays warm in between
HEADER = 64  # tokens kept free for the markers, the repository's name and the file's path


class ServeParams(StageParams):
    """Budgets in tokens, and how llama-server is run."""

    order: Literal["auto", "spm", "psm"]  # spm while typing; auto: psm after a jump that it makes cheaper; psm without spm
    ctx: int = Field(ge=256)  # tokens a slot holds; no more than the model was trained on
    slots: int = Field(ge=1, le=64)  # places typed in whose cache is kept; 12 kB a token of a 0.5B model
    queue: int = Field(ge=0)  # requests that may wait for a slot; one more is told to come back
    deadline_ms: int = Field(ge=1)  # within which an automatic completion must have been started, or it is not worth it any more
    answer_ms: int = Field(ge=1)  # after which a client that does not stream gets the lines that are there; the rest is written for later
    next_line: bool  # while nobody types, write the line after the one that was shown: pays where answers are taken often
    heal: bool  # take back the tokens of a word that is being typed, and let the model write it again; not in psm
    min_confidence: float = Field(ge=0, lt=1)  # probability of tokens below which nothing is shown; 0: everything is
    threads: int = Field(ge=0)  # of llama.cpp; 0: every core this process may use
    batch: int = Field(ge=32)  # tokens evaluated at once; llama-server hears a cancel only between batches
    prefix_tokens: int = Field(ge=32)
    suffix_tokens: int = Field(ge=0)
    context_tokens: int = Field(ge=0)  # of chunks from other files; 0: no retrieval
    max_line_tokens: int = Field(ge=1)  # generated where one line is completed
    max_block_tokens: int = Field(ge=1)  # generated where a block is completed
    chunk_lines: int = Field(ge=4)
    max_chunks: int = Field(ge=0)  # retrieved per request
    retrieval: Literal["bm25", "definitions", "hybrid"]  # words; names defined elsewhere first; and vectors of the model's own tokens
    embedder: str  # URL of a service for vectors, `http://127.0.0.1:11434/v1#model`, asked where retrieval is hybrid; "": none
    max_file_bytes: int = Field(ge=1000)  # larger files are not indexed
    smoke_holes: int = Field(ge=1)  # held-out holes that the `smoke` command asks
    smoke_keystrokes: int = Field(ge=2)  # characters that it types in each order

    @model_validator(mode="after")
    def fits(self) -> ServeParams:
        """The longest prompt and its answer fit into a slot."""
        most = int(SLACK * self.prefix_tokens) + self.suffix_tokens + self.context_tokens + HEADER + self.most_generated
        if most > self.ctx:
            raise ValueError(f"{SLACK} x prefix + suffix + context + {HEADER} + answer are {most} tokens: more than ctx {self.ctx}")
        return self

    @property
    def most_generated(self) -> int:
        """Tokens of the longest answer."""
        return max(self.max_line_tokens, self.max_block_tokens)

    def within(self, context: int) -> ServeParams:
        """The same shares of a smaller context, for a model that was trained on less than `ctx` tokens."""
        if self.ctx <= context:
            return self
        budgets = ("prefix_tokens", "suffix_tokens", "context_tokens", "max_line_tokens", "max_block_tokens")
        share = (context - HEADER) / (self.ctx - HEADER)
        smaller = {name: max(1, int(getattr(self, name) * share)) for name in budgets}
        return ServeParams.model_validate({**self.model_dump(), **smaller, "ctx": context})


# Where there is no params.yaml: budgets for a 0.5B model on a few cores, some 256 prompt tokens/s and 56 generated/s on two
ANYWHERE = ServeParams(
    order="spm",
    ctx=2048,
    slots=5,
    queue=8,
    deadline_ms=1500,
    answer_ms=1000,
    next_line=False,
    heal=True,
    min_confidence=0.0,
    threads=0,
    batch=128,
    prefix_tokens=512,
    suffix_tokens=192,
    context_tokens=320,
    max_line_tokens=48,
    max_block_tokens=128,
    chunk_lines=24,
    max_chunks=4,
    retrieval="definitions",
    embedder="",
    max_file_bytes=400_000,
    smoke_holes=20,
    smoke_keystrokes=40,
)
