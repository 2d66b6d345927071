"""Phase 3: adapter in, merged weights, GGUF and a quantized GGUF out."""
