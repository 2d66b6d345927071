"""Phase 2: FIM samples in, a base model and adapters out (pretrain, SFT, preference pairs, DPO)."""

import logging
import os

# Libraries' own bars and hints would drown our progress lines; errors still show.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
