"""`python -m phase3_quantize` shows the commands."""

from phase3_quantize.cli import app

app(prog_name="python -m phase3_quantize")
