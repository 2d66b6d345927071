"""`python -m eval` shows the commands."""

from eval.cli import app

app()
