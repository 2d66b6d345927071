"""Prompts: what typing changes in them, and what never gets into them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from core.fim import CONTROL, Chunk, Codec, FimTokens
from phase4_serve.compose import Ask, Composer
from phase4_serve.index import Index, put_all
from phase4_serve.params import ANYWHERE, HEADER, ServeParams
from phase4_serve.workspace import Workspace
from tests.phase4_serve.conftest import CANARY, HELPER

TOKENS = FimTokens(*range(256, 263))
CODEC = Codec(lambda text: list(text.encode()), TOKENS)
SUFFIX = "\n\nif __name__ == '__main__':\n    main()\n"
BODY = "def read(raw_header):\n    name, value = parse_http_header(raw_header)\n    return name\n"


def composer(params: ServeParams, workspace: Path | None) -> Composer:
    if workspace is None:
        return Composer(CODEC, params, None, None)
    index = Index(params.chunk_lines)
    put_all(index, Workspace(workspace, 20_000).sources())
    return Composer(CODEC, params, Workspace(workspace, 20_000), index)


def text_of(ids: list[int]) -> str:
    return b"".join(bytes([i]) if i < 256 else CONTROL[i - 256].encode() for i in ids).decode(errors="replace")


def shared(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@pytest.mark.parametrize("path", ["client.py", ""])
def test_a_typed_character_is_one_new_token(params: ServeParams, workspace: Path, path: str) -> None:
    made = composer(params, workspace)
    head = "".join(f"value_{i} = {i}\n" for i in range(100))
    before: list[int] = []
    moved = 0
    for typed in range(len(BODY) * 2):
        ids = made.compose(Ask(head + (BODY * 2)[:typed], SUFFIX, path)).ids
        assert len(ids) + params.most_generated <= params.ctx
        common = shared(before, ids)
        moved += bool(before) and common < len(before)
        assert not before or len(ids) - common <= 1 or common < len(before)
        before = ids
    assert moved <= 2  # the window jumped, once per half budget


def test_the_header_stays_while_the_cursor_moves_a_little(params: ServeParams, workspace: Path) -> None:
    made = composer(params, workspace)
    text = BODY * 3
    one = made.compose(Ask(text[:80], text[80:], "client.py")).hole.context
    two = made.compose(Ask(text[:60], text[60:], "client.py")).hole.context
    assert one and one == two


def test_context_stands_where_training_put_it(params: ServeParams, workspace: Path) -> None:
    prompt = composer(params, workspace).compose(Ask(BODY + "parse_http_header(", SUFFIX, str(workspace / "client.py")))
    text = text_of(prompt.ids)
    assert text.startswith("<|repo_name|>myrepo<|file_sep|>headers.py\ndef parse_http_header")
    assert "<|file_sep|>client.py\n<|fim_prefix|><|fim_suffix|>" in text and text.endswith("<|fim_middle|>" + BODY + "parse_http_header(")


def test_the_orders(params: ServeParams) -> None:
    made = composer(params, None)
    assert text_of(made.compose(Ask("a", "b", order="psm")).ids) == "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"
    assert text_of(made.compose(Ask("a", "b")).ids) == "<|fim_prefix|><|fim_suffix|>b<|fim_middle|>a"
    assert text_of(made.compose(Ask("a", None)).ids) == "a"  # no hole: plain text to go on with


def test_a_secret_never_gets_into_a_prompt(params: ServeParams, workspace: Path) -> None:
    made = composer(params, workspace)
    sent = (Chunk("notes.py", f"token = '{CANARY}'\n"), Chunk(".env", "HARMLESS=1\n"), Chunk("../../etc/passwd", "root\n"))
    text = text_of(made.compose(Ask("def github_client():\n    return connect(GITHUB_TOKEN", "\n", "x.py", "", sent)).ids)
    assert CANARY not in text and "HARMLESS" not in text and ".." not in text
    assert "notes.py" in text and "settings.py" in text


@pytest.mark.parametrize("marker", CONTROL)
def test_a_marker_in_the_code_stays_text(params: ServeParams, workspace: Path, marker: str) -> None:
    (workspace / "tricky.py").write_text(f"MARK = '{marker}'  # parse_tricky_marker\n")
    sent = (Chunk(f"{marker}.py", f"a{marker}b\n"),)
    ids = (
        composer(params, workspace)
        .compose(Ask(f"x = '{marker}' + parse_tricky_marker(", f"'{marker}'\n", f"{marker}/y.py", marker, sent))
        .ids
    )
    for token in (TOKENS.prefix, TOKENS.suffix, TOKENS.middle, TOKENS.repo_name):
        assert ids.count(token) == 1
    assert TOKENS.end not in ids and TOKENS.pad not in ids


def test_long_names_and_texts_still_fit(params: ServeParams, workspace: Path) -> None:
    ask = Ask("ü" * 9000, "ß" * 9000, "p" * 5000, "r" * 5000, tuple(Chunk("n" * 3000, "t\n" * 3000) for _ in range(100)))
    assert len(composer(params, workspace).compose(ask).ids) + params.most_generated <= params.ctx


def test_a_secret_in_the_open_file_is_masked_and_typing_below_it_costs_one_token(params: ServeParams) -> None:
    made = composer(params, None)
    head, below = f"TOKEN = '{CANARY}'\n\n\ndef connect(", f"\n    pass\n\nOTHER = '{CANARY}'\n"
    before: list[int] = []
    for typed in range(1, 12):
        ids = made.compose(Ask(head + "token, url):"[:typed], below, "x.py")).ids
        assert CANARY not in text_of(ids)
        assert not before or ids[: len(before)] == before
        before = ids
    line = made.compose(Ask(f"{head}token):\n    send('{CANARY}", below, "x.py"))
    assert text_of(line.ids).count(CANARY) == 1  # the cursor's line is the user's to see completed


def test_a_bracket_that_the_editor_closes_costs_nothing(params: ServeParams) -> None:
    made = composer(params, None)
    head, below = "def read(raw):\n    return parse", "\n\n\nprint(read('a: b'))\n"
    open_ids = made.compose(Ask(head, below, "x.py")).ids
    for typed, closed in (("(", ")"), ("(raw", ")"), ("(raw[", "])"), ("(raw['", "'])"), ("(raw['a']", ")"), ("(raw['a'])", "")):
        prompt = made.compose(Ask(head + typed, closed + below, "x.py"))
        assert prompt.ids[: len(open_ids)] == open_ids
        assert prompt.place.rest == closed  # what ends the completion is the text as it is


def test_a_client_whose_windows_slide_costs_one_token_too(params: ServeParams) -> None:
    made = composer(params, None)
    head, below = "".join(f"value_{i} = {i}\n" for i in range(60)), "".join(f"\nafter_{i} = {i}" for i in range(60))
    before: list[int] = []
    moved = 0
    for typed in range(1, 60):
        text = head + ("total = value_1 + value_2\n" * 3)[:typed]
        ids = made.compose(Ask(text[-500 - typed % 7 :], below[: 400 - typed], "x.py")).ids
        moved += bool(before) and ids[: len(before)] != before
        before = ids
    assert moved == 0


def test_a_jump_is_another_region_of_the_same_session_and_the_way_back_is_known(params: ServeParams, workspace: Path) -> None:
    made = composer(params, workspace)
    text = "".join(f"def f{i}(a):\n    x{i} = parse_http_header(a)\n    return x{i}\n\n\n" for i in range(40))
    near, far = text.index("x3 ="), text.index("x36 =")
    one = made.compose(Ask(text[:near], text[near:], "x.py"))
    two = made.compose(Ask(text[:far], text[far:], "x.py"))
    assert one.session == two.session and shared(one.ids, two.ids) < len(one.ids) / 2
    assert made.compose(Ask(text[: near + 2], text[near:], "x.py")).ids[: len(one.ids)] == one.ids
    other = made.compose(Ask(text[:near], text[near:], "x.py", client="another editor"))
    assert other.session != one.session and other.ids == one.ids


def test_the_next_window_is_got_ready_before_this_one_is_left(params: ServeParams) -> None:
    made = composer(params, None)
    text = "".join(f"value_{i} = {i}\n" for i in range(60))
    known: list[list[int]] = []
    for size in range(200, len(text)):
        draft = made.draft(Ask(text[:size], SUFFIX, "x.py"))
        ids = draft.ids("spm")
        if known:
            assert shared(known[-1], ids) == min(len(known[-1]), len(ids))
            return
        if (coming := draft.next_ids()) is not None:
            assert len(coming) < len(ids)
            draft.move_on()
            known.append(coming)
    raise AssertionError("it never moved")


def test_a_small_window_grows_with_what_is_typed(params: ServeParams) -> None:
    made = composer(params, None)
    text = "".join(f"value_{i} = {i}\n" for i in range(60)) + "\n\nx = "
    before: list[int] = []
    for typed in range(12):
        ids = made.draft(Ask(text + "0123456789ab"[:typed], SUFFIX, "x.py")).small_ids(60, context=False)
        assert len(ids) <= 60 * 1.5 + 8 and (not before or ids[: len(before)] == before)
        before = ids


def test_pieces_change_only_for_clearly_better_ones(params: ServeParams, workspace: Path) -> None:
    made = composer(params, workspace)
    draft = made.draft(Ask(BODY + "parse_http_header(", SUFFIX, "client.py"))
    made.choose(draft)
    assert made.better(draft) is None
    draft.region.pieces = []
    assert made.better(draft)


def test_pieces_that_are_gone_are_not_shown(params: ServeParams, workspace: Path) -> None:
    made = composer(params, workspace)
    ask = Ask(BODY + "parse_http_header(", SUFFIX, "client.py")
    assert any(chunk.path == "headers.py" for chunk in made.compose(ask).hole.context)
    assert made.index is not None
    made.index.remove("headers.py")
    made.index.commit()
    assert all(chunk.path != "headers.py" for chunk in made.compose(ask).hole.context)


def test_a_copy_of_what_is_being_typed_is_not_shown(params: ServeParams, workspace: Path) -> None:
    context = composer(params, workspace).compose(Ask(HELPER, "\n", "elsewhere.py")).hole.context
    assert all(chunk.path != "headers.py" for chunk in context)


def test_a_smaller_model_gets_smaller_budgets() -> None:
    small = ANYWHERE.within(512)
    assert (
        small.ctx == 512 and small.prefix_tokens * 1.5 + small.suffix_tokens + small.context_tokens + HEADER + small.most_generated <= 512
    )
    assert ANYWHERE.within(32768) == ANYWHERE


def test_budgets_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(ValueError, match="more than ctx"):
        ServeParams.model_validate({**ANYWHERE.model_dump(), "prefix_tokens": 2000})
