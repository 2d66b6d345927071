"""Benchmarks: one part beside another program, or beside what was asked for; no stage of the pipeline runs them."""
