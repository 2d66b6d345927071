"""Commands of phase 4: the server, a question to it from the shell, and the stage that measures it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from core.errors import InputError, errors_in_one_line
from core.params import PARAMS_FILE, load_params, read_document
from phase4_serve.params import ANYWHERE, ServeParams

app = typer.Typer(help="Phase 4: a GGUF in, a completion server out.", no_args_is_help=True, pretty_exceptions_enable=False)

ParamsFile = Annotated[Path | None, typer.Option("--params", help="File with the profiles and their sections.")]
Profile = Annotated[str | None, typer.Option(help="Profile to use; default: the file's `profile:` key.")]
Model = Annotated[Path, typer.Option(help="The GGUF to serve.")]
Number = Annotated[int | None, typer.Option(min=0, help="Instead of the serve section's value, in tokens.")]
MODEL = Path("phase3_quantize/out/quantize/model-q4_k_m.gguf")
SAMPLES = Path("phase1_data/out/samples")
URL = "http://127.0.0.1:8080"


def settings(params: Path | None, profile: str | None, flags: dict[str, Any]) -> ServeParams:
    """The serve section of the params file, or built-in values where there is none, with flags on top.

    Raises:
        InputError: a section that does not validate, or flags that do not fit together.
    """
    given = params is not None or profile is not None
    section = load_params(ServeParams, "serve", params or PARAMS_FILE, profile) if given or _has_section() else ANYWHERE
    try:
        return ServeParams.model_validate({**section.model_dump(), **{name: value for name, value in flags.items() if value is not None}})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["loc"]:
            raise InputError(f"--{str(first['loc'][0]).replace('_', '-')}: {first['msg']}: choose another value") from None
        raise InputError(f"{first['msg']}: choose smaller budgets or a larger --ctx") from None


def _has_section() -> bool:
    """Whether the current folder's params file speaks about serving; another project's file may not."""
    if not PARAMS_FILE.is_file():
        return False
    document = read_document(PARAMS_FILE)
    profile = document.get(str(document.get("profile")))
    return isinstance(profile, dict) and "serve" in profile


@app.command()
def up(
    model: Model = MODEL,
    workspace: Annotated[Path | None, typer.Option(help="Root of your code, for context from other files; default: none.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; one that other machines reach needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    key_file: Annotated[Path | None, typer.Option(help="Private file with the key to ask for; or set TABSMITH_API_KEY.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Another name that a Host header may carry.")] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A web page that may ask, as http://localhost:3000; default: none.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="A LoRA adapter (GGUF) over the model.")] = None,
    chat_url: Annotated[str, typer.Option(help="An OpenAI-compatible service for chat; your questions and code go there.")] = "",
    chat_model: Annotated[str, typer.Option(help="The model that the chat service is asked for.")] = "",
    events: Annotated[Path | None, typer.Option(help="File for what editors report; default: in your state folder.")] = None,
    keep_text: Annotated[bool, typer.Option("--keep-text", help="Write completions into it too, for `pairs`; default: counts.")] = False,
    order: Annotated[str | None, typer.Option(help="spm, auto, or psm for a model that was not trained on contiguous spm.")] = None,
    ctx: Number = None,
    prefix_tokens: Number = None,
    suffix_tokens: Number = None,
    context_tokens: Number = None,
    max_line_tokens: Number = None,
    max_block_tokens: Number = None,
    slots: Annotated[int | None, typer.Option(min=1, help="Places typed in whose cache is kept.")] = None,
    threads: Annotated[int | None, typer.Option(min=0, max=512, help="Threads of llama.cpp; 0: every core.")] = None,
    socket: Annotated[Path | None, typer.Option(help="Unix socket for llama-server; default: one in a private folder.")] = None,
    warm: Annotated[bool, typer.Option(help="Keep what the model has read of your files for the next start, in a private folder.")] = True,
    params: ParamsFile = None,
    profile: Profile = None,
) -> None:
    """Serve completions until Ctrl-C; a new file in the model's place is taken without a pause."""
    flags = {
        "order": order,
        "ctx": ctx,
        "prefix_tokens": prefix_tokens,
        "suffix_tokens": suffix_tokens,
        "context_tokens": context_tokens,
        "max_line_tokens": max_line_tokens,
        "max_block_tokens": max_block_tokens,
        "slots": slots,
        "threads": threads,
    }
    with errors_in_one_line():
        chosen = settings(params, profile, flags)
        from phase4_serve import up as server

        hosts, origins = tuple(allow_host or ()), tuple(allow_origin or ())
        asked = server.Options(model, workspace, host, port, socket, adapter, key_file, hosts, origins, warm, chat_url, chat_model)
        server.run(asked._replace(events=events, keep_text=keep_text), chosen)


@app.command()
def ask(
    file: Annotated[Path, typer.Option(help="File to complete in.")],
    line: Annotated[int, typer.Option(help="Line of the cursor, from 1.")],
    col: Annotated[int, typer.Option(help="Column of the cursor, from 1: the character it stands before.")],
    url: Annotated[str, typer.Option(help="Where the server listens.")] = URL,
    key_file: Annotated[Path | None, typer.Option(help="Private file with the server's key; or set TABSMITH_API_KEY.")] = None,
) -> None:
    """Print what a running server would write at a place in a file."""
    with errors_in_one_line():
        from phase4_serve import ask as question

        print(question.run(file, line, col, url, key_file))


@app.command()
def editors(
    url: Annotated[str, typer.Option(help="Where the server listens.")] = URL,
    key: Annotated[bool, typer.Option("--key", help="The server asks for a key.")] = False,
    editor: Annotated[str | None, typer.Argument(help="continue, llama.vscode, llama.vim, minuet, openai or curl; default: all.")] = None,
) -> None:
    """Print what to write into an editor's settings."""
    with errors_in_one_line():
        from phase4_serve.editors import settings as lines

        print(lines(url, key, editor))


@app.command()
def pairs(
    events: Annotated[Path | None, typer.Option(help="Events of a server with --keep-text; default: in your state folder.")] = None,
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("phase4_serve/out/editor_pairs.jsonl"),
) -> None:
    """Make preference pairs of what was accepted, dismissed and written instead."""
    with errors_in_one_line():
        from phase4_serve import pairs as stage
        from phase4_serve.events import default_file

        counts = stage.run(events or default_file(), out)
        print(f"{out}: {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}")
        print(f"next: python -m phase2_train pairs --editor {out}")


@app.command()
def smoke(
    model: Model = MODEL,
    samples: Annotated[Path, typer.Option(help="Folder of samples that phase 1 wrote.")] = SAMPLES,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("phase4_serve/out"),
    params: Annotated[Path, typer.Option("--params", help="File with the profiles and their sections.")] = PARAMS_FILE,
    profile: Profile = None,
) -> None:
    """Start the server, ask it held-out holes, measure, stop it (the DVC stage `serve`)."""
    with errors_in_one_line():
        chosen = load_params(ServeParams, "serve", params, profile)
        from phase4_serve import smoke as stage

        figures = stage.run(model, samples, out, chosen)
        first, typed = figures["first_token_ms"]["gateway_cold"], figures["typing"]
        print(
            f"{out}/serve.json: ready after {figures['seconds_to_ready']:.1f} s, first token p50 {first['p50']:.0f} ms, "
            f"{typed['spm']['evaluated_per_key']:.1f} tokens per keystroke in spm, {typed['psm']['evaluated_per_key']:.1f} in psm"
        )
