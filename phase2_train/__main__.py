"""`python -m phase2_train` shows the commands."""

from phase2_train.cli import app

app()
