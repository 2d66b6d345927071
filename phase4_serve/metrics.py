"""Figures of a running server, as Prometheus reads them. Counts and seconds only, never text.

In:  what the engine reports after each request
Out: `/metrics`
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.7, 1, 1.5, 2.5, 5, 10, 30)
FINE = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)


class Metrics:
    """One server's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.first_token = Histogram("tabsmith_first_token_seconds", "From request to first text", registry=r, buckets=SECONDS)
        self.total = Histogram("tabsmith_request_seconds", "From request to last text", registry=r, buckets=SECONDS)
        self.retrieval = Histogram("tabsmith_retrieval_seconds", "Choosing pieces of other files", registry=r, buckets=FINE)
        self.prompt = Histogram("tabsmith_prompt_seconds", "From request to prompt, encoding included", registry=r, buckets=FINE)
        self.evaluated = Counter("tabsmith_prompt_tokens_evaluated", "Prompt tokens that had to be evaluated", registry=r)
        self.cached = Counter("tabsmith_prompt_tokens_cached", "Prompt tokens that the cache held", registry=r)
        self.generated = Counter("tabsmith_generated_tokens", "Tokens generated", registry=r)
        self.requests = Counter("tabsmith_requests", "Requests by how they ended", ["outcome"], registry=r)
        self.running = Gauge("tabsmith_running", "Requests that run or wait for a slot", registry=r)
        self.restarts = Gauge("tabsmith_llama_server_deaths", "How often llama-server had to be started again", registry=r)
        self.pieces = Gauge("tabsmith_index_pieces", "Pieces of the workspace in the index", registry=r)
        for outcome in ("shown", "empty", "cancelled", "refused", "busy", "unavailable", "failed"):
            self.requests.labels(outcome)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
