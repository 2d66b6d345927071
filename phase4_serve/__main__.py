"""`python -m phase4_serve` shows the commands."""

from core.errors import errors_in_one_line

with errors_in_one_line():  # Ctrl-C while a second of imports goes on, too
    from phase4_serve.cli import app

    app()
