"""Phase 4: a GGUF model in, a completion server out that knows the user's workspace."""
