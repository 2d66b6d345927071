"""What to write into an editor's settings so that it asks this server.

In:  the server's URL, whether it asks for a key
Out: a text for people to copy from

The key itself is never printed: where one is needed, its place is named.
"""

from __future__ import annotations

from core.errors import InputError
from phase4_serve.security import KEY_VARIABLE

KEY = "YOUR_KEY"
# Continue chooses the FIM template by the model's name: this one renders Qwen's markers, which the server takes apart again
CONTINUE = """\
~/.continue/config.yaml   (Continue for VS Code and JetBrains)
    models:
      - name: tabsmith
        provider: llama.cpp
        model: qwen2.5-coder-0.5b
        apiBase: {url}/{continue_key}
        roles: [autocomplete]
        autocompleteOptions: {{debounceDelay: 20, modelTimeout: 1500, maxPromptTokens: 2048}}
"""
VSCODE = """\
settings.json   (llama.vscode)
    "llama-vscode.endpoint": "{url}",{vscode_key}
    "llama-vscode.n_predict": 128
"""
VIM = """\
~/.vimrc or init.vim   (llama.vim; older versions say 'endpoint' instead of 'endpoint_fim')
    let g:llama_config = {{'endpoint_fim': '{url}/infill', 'api_key': '{vim_key}', 'auto_fim': v:true}}
"""
MINUET = """\
init.lua   (minuet-ai.nvim; api_key is the name of a variable of the environment, any that is set where no key is asked for)
    require('minuet').setup({{
      provider = 'openai_fim_compatible', n_completions = 1, context_window = 8000,
      provider_options = {{ openai_fim_compatible = {{
        name = 'tabsmith', end_point = '{url}/v1/completions', model = 'any', api_key = '{minuet_key}', optional = {{ max_tokens = 64 }},
      }} }},
    }})
"""
OPENAI = """\
Python   (the openai package)
    client = openai.OpenAI(base_url="{url}/v1", api_key="{openai_key}")
    client.completions.create(model="any", prompt="def area(r):\\n    return ", suffix="\\n", extra_body={{"path": "shapes.py"}})
"""
CURL = """\
shell
    curl {url}/v1/completions {curl_key}-d '{{"prompt": "def area(r):\\n    return ", "suffix": "\\n", "path": "shapes.py"}}'
    curl {url}/openapi.json
"""
ALL = {"continue": CONTINUE, "llama.vscode": VSCODE, "llama.vim": VIM, "minuet": MINUET, "openai": OPENAI, "curl": CURL}


def settings(url: str, key: bool, editor: str | None = None) -> str:
    """Settings of one editor, or of all.

    Raises:
        InputError: no such editor.
    """
    if editor is not None and editor not in ALL:
        raise InputError(f"no settings for {editor}: choose among {', '.join(ALL)}")
    given = KEY if key else ""
    values = {
        "url": url.rstrip("/"),
        "continue_key": f"\n        apiKey: {given}" if key else "",
        "vscode_key": f'\n    "llama-vscode.api_key": "{given}",' if key else "",
        "vim_key": given,
        "minuet_key": KEY_VARIABLE if key else "TERM",
        "openai_key": given or "none",
        "curl_key": f"-H 'Authorization: Bearer {given}' " if key else "",
    }
    return "\n".join(text.format(**values) for name, text in ALL.items() if editor in (None, name))
