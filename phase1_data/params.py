"""The sections of params.yaml that phase 1 reads; every value stands in the file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from core.params import StageParams

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
SpanKind = Literal["line_rest", "lines", "node", "chars"]
EngineKind = Literal["local", "ray"]  # processes of this machine, or a Ray cluster


class EnvironmentSource(StageParams):
    """Python code that is installed here: the standard library and packages, read where they lie."""

    kind: Literal["environment"]
    stdlib: bool
    packages: Literal["all"] | list[str]  # distribution names
    exclude: list[str]


class FolderSource(StageParams):
    """Folders of your own, each one repository."""

    kind: Literal["folder"]
    paths: Annotated[list[str], Field(min_length=1)]
    license: str | None  # SPDX; null: from the LICENSE file there


class HubSource(StageParams):
    """A code set on the Hub, or a local Parquet file, folder of Parquet, or JSONL file of the same columns."""

    kind: Literal["hub"]
    id: str
    revision: str | None  # commit; null resolves to today's and records it
    data_dir: str | None
    split: str


Source = Annotated[EnvironmentSource | FolderSource | HubSource, Field(discriminator="kind")]


class IngestParams(StageParams):
    """What is read, and how much of it."""

    sources: Annotated[list[Source], Field(min_length=1)]
    languages: Annotated[list[str], Field(min_length=1)]  # names of core.syntax.LANG_OF_SUFFIX
    max_files: Count  # 0: no limit
    max_repo_bytes: Count  # 0: no limit
    max_file_bytes: Positive
    canaries: Count  # planted files with a secret that nobody owns (core.canary); 0: none
    canary_seed: int


class CleanParams(StageParams):
    """What is kept."""

    licenses: Literal["permissive", "any"] | list[str]  # a list: SPDX ids
    min_lines: Count
    max_line: Positive  # characters of the longest line
    mean_line: Positive  # characters
    min_alnum: Share  # of the characters
    drop_generated: bool  # generated, vendored and data files
    drop_unparsable: bool
    dedup_threshold: Share  # Jaccard of token 5-grams
    dedup_permutations: Annotated[int, Field(ge=16)]
    engine: EngineKind
    workers: Positive


class ScrubParams(StageParams):
    """How much of a file may be masked."""

    max_masked_share: Share  # of a file's characters; above it the file is dropped
    engine: EngineKind
    workers: Positive


class SamplesParams(StageParams):
    """How files become rows to train and test on."""

    tokenizer: str  # folder with tokenizer.json, that file, or a Hub id
    tokenizer_revision: str | None
    seed: int
    heldout_repos: list[str]  # whole repositories for test_repo
    heldout_repo_share: Share  # of the other repositories
    heldout_file_share: Share  # of the files in repositories that are trained on
    valid_share: Share  # of the same files
    row_tokens: Annotated[int, Field(ge=32)]
    max_middle_tokens: Positive
    holes_per_window: Positive
    spm_rate: Share
    ltr_rate: Share  # the rest is psm
    span_mix: dict[SpanKind, Annotated[float, Field(ge=0)]]  # weights
    empty_suffix_rate: Share
    context_rate: Share  # of the samples, those that get chunks of other files
    context_tokens: Count
    test_holes: Count  # per held-out split
    max_train: Count  # rows; 0: no limit
    decontaminate: list[str]  # benchmarks: JSONL files, .gz or not, or Parquet
    ngram: Positive  # words that make a match with a benchmark
    engine: EngineKind
    workers: Positive
