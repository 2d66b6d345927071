"""Phase 2: FIM samples in, a base model and adapters out (pretrain, SFT, preference pairs, DPO)."""
