"""Evaluation: every model of the chain on the same held-out holes, each against the one it came from, in one report."""

import logging
import os

# Libraries' own bars and hints would drown our progress lines; errors still show.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
