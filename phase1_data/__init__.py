"""Phase 1: source code in, licensed, deduplicated, scrubbed files and fill-in-the-middle samples out."""
