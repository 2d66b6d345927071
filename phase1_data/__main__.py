"""`python -m phase1_data` shows the commands."""

from phase1_data.cli import app

if __name__ == "__main__":  # worker processes import this module again
    app(prog_name="python -m phase1_data")
