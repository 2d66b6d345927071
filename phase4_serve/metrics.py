"""Figures of a running server, as Prometheus reads them. Counts and seconds only, never text.

In:  what the engine, the scheduler and the gateway report
Out: `/metrics`
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

# The promises (3, 40, 80, 220, 700 ms) are bounds, so that "how many kept it" is a figure and no estimate
SECONDS = (0.001, 0.003, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.22, 0.3, 0.4, 0.7, 1, 1.5, 2.5, 5, 10, 30)
FINE = (0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256)
TOKENS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
OUTCOMES = ("shown", "empty", "cancelled", "superseded", "late", "declined", "refused", "busy", "unavailable", "failed")
TYPED = ("whole", "part", "miss")


class Metrics:
    """One server's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.first_token = Histogram("tabsmith_first_token_seconds", "From request to first text", registry=r, buckets=SECONDS)
        self.total = Histogram("tabsmith_request_seconds", "From request to last text", registry=r, buckets=SECONDS)
        self.retrieval = Histogram("tabsmith_retrieval_seconds", "Choosing pieces of other files", registry=r, buckets=FINE)
        self.prompt = Histogram("tabsmith_prompt_seconds", "From request to prompt, encoding included", registry=r, buckets=FINE)
        self.gateway = Histogram(
            "tabsmith_gateway_seconds", "A request's time without llama-server's and the queue's", registry=r, buckets=FINE
        )
        self.cancel_seconds = Histogram("tabsmith_cancel_seconds", "From a cancel to the slot being free", registry=r, buckets=SECONDS)
        self.evaluated = Counter("tabsmith_prompt_tokens_evaluated", "Prompt tokens that had to be evaluated", registry=r)
        self.evaluated_per_request = Histogram(
            "tabsmith_request_prompt_tokens_evaluated", "Prompt tokens that a request had evaluated", registry=r, buckets=TOKENS
        )
        self.cached = Counter("tabsmith_prompt_tokens_cached", "Prompt tokens that the cache held", registry=r)
        self.generated = Counter("tabsmith_generated_tokens", "Tokens generated", registry=r)
        self.requests = Counter("tabsmith_requests", "Completions by how they ended", ["outcome"], registry=r)
        self.chat_requests = Counter("tabsmith_chat_requests", "Chat answers by how they ended", ["outcome"], registry=r)
        self.typed_through = Counter("tabsmith_typed_through", "Completions by how much was known already", ["kind"], registry=r)
        self.declined = Counter("tabsmith_declined", "Completions that made no sense to try, by reason", ["reason"], registry=r)
        self.prefills = Counter("tabsmith_prefills", "Prompts evaluated ahead of a keystroke, by how they ended", ["outcome"], registry=r)
        self.preempted = Counter("tabsmith_preempted", "Chat and background jobs that made way for a completion", registry=r)
        self.healed = Counter("tabsmith_healed", "Completions whose last token was taken back", registry=r)
        self.unsure = Counter("tabsmith_unsure", "Completions withheld below the confidence floor", registry=r)
        self.events = Counter("tabsmith_events", "What editors reported", ["kind"], registry=r)
        self.swaps = Counter("tabsmith_model_swaps", "Models or adapters exchanged while serving, by how it ended", ["outcome"], registry=r)
        self.running = Gauge("tabsmith_running", "Requests that run or wait for a slot", registry=r)
        self.restarts = Gauge("tabsmith_llama_server_deaths", "How often llama-server had to be started again", registry=r)
        self.pieces = Gauge("tabsmith_index_pieces", "Pieces of the workspace in the index", registry=r)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        for kind in TYPED:
            self.typed_through.labels(kind)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
