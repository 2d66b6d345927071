"""`python -m phase4_serve` shows the commands."""

from phase4_serve.cli import app

app()
