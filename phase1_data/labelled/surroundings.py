"""Innocuous lines to put around a row, so that not every value stands on a line alone.

In:  the path of a row
Out: lines before and after it
"""

from __future__ import annotations

import random
from pathlib import PurePosixPath

SHARE = 0.3  # of rows that get lines around them

AROUND = {
    ".py": [
        ("import logging\n\nlog = logging.getLogger(__name__)\n", "\nlog.info('ready')"),
        ("DEBUG = False\n", "\nRETRIES = 3"),
        ("", "\n"),
    ],
    ".js": [("'use strict';\n\n", "\nmodule.exports = { start };"), ("const retries = 3;\n", "\nlet timer = null;"), ("", "\n")],
    ".ts": [("import { Injectable } from '@angular/core';\n\n", ""), ("const retries = 3;\n", "\nexport {};"), ("", "\n")],
    ".go": [("package main\n\n", ""), ("\t// set up\n", "\n\tdefer cancel()"), ("", "\n")],
    ".java": [("int retries = 3;\n", '\nlog.debug("configured");'), ("    // set up\n", ""), ("", "\n")],
    ".cs": [("var retries = 3;\n", "\nawait host.RunAsync();"), ("", "\n")],
    ".rb": [("require 'logger'\n\n", ""), ("# set up\n", "\nretries = 3"), ("", "\n")],
    ".php": [("<?php\n\n", ""), ("$retries = 3;\n", "\n$debug = false;"), ("", "\n")],
    ".sh": [("#!/bin/sh\nset -eu\n\n", ""), ("# set up\n", "\necho done"), ("", "\n")],
    ".env": [("DEBUG=false\n", "\nLOG_LEVEL=info"), ("PORT=8080\n", ""), ("", "\n")],
    ".properties": [("app.name=demo\n", "\napp.retries=3"), ("", "\n")],
    ".ini": [("; settings\n", "\nretries = 3"), ("", "\n")],
    ".sql": [("BEGIN;\n", "\nCOMMIT;"), ("-- set up\n", ""), ("", "\n")],
    ".tf": [("# set up\n", ""), ("", "\n")],
    ".md": [("## Setting up\n\n", ""), ("", "\n\nSee the next section.")],
    ".log": [("", "\n")],
}


def around(rng: random.Random, path: str, text: str) -> tuple[str, str]:
    """Lines before and after, most often none; none around a row that is already many lines."""
    name = PurePosixPath(path)
    choices = AROUND.get(name.suffix or name.name, [])
    if not choices or text.count("\n") > 5 or rng.random() > SHARE:
        return "", ""
    return rng.choice(choices)
