"""A page in a real browser, without pictures: what a window of a given size shows of it.

In:  HTML, width and height of the window
Out: widths, where the first screen's parts end, what sticks out, what the console said and which addresses were asked for
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
PROBE = """onload = () => {
  const d = document.getElementById('f').contentDocument, root = d.scrollingElement;
  const bottom = name => Math.ceil(d.querySelector(name).getBoundingClientRect().bottom);
  const outside = [...d.querySelectorAll('body *')].filter(e => !e.closest('.wide') && !e.closest('svg')
    && e.getBoundingClientRect().right > root.clientWidth + 1).map(e => e.tagName).slice(0, 5);
  document.title = JSON.stringify({scroll: root.scrollWidth, client: root.clientWidth, steps: bottom('.steps'), facts: bottom('.facts'),
    rows: d.querySelectorAll('.steps li:not(.head)').length, outside,
    shown: [...d.querySelectorAll('.steps strong, .fact .value')].every(e => e.getBoundingClientRect().height > 0),
    fetched: document.getElementById('f').contentWindow.performance.getEntriesByType('resource').map(e => e.name)});
}"""


def look(html: str, width: int, height: int, scratch: Path) -> dict[str, Any]:
    """The page in a frame of that size: a headless window is never narrower than 500 pixels."""
    frame = scratch / "frame.html"
    style = f"width:{width}px;height:{height}px;border:0"
    frame.write_text(f'<body style="margin:0"><iframe id="f" style="{style}" srcdoc="{escape(html)}"></iframe><script>{PROBE}</script>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr", "--v=0"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={scratch / 'profile'}", f"--window-size={width},{height}", "--dump-dom"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title, done.stderr[-2000:]
    return json.loads(unescape(title[1])) | {"console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}
