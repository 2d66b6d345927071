"""The one shape of every error.

In:  a status and what a client may be told
Out: OpenAI's error object
"""

from __future__ import annotations


class ApiError(Exception):
    """A request that gets an error: OpenAI's object with an HTTP status."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = {"Retry-After": "1"} if status in (429, 503) else {}


def busy() -> ApiError:
    """As many requests as may wait are waiting."""
    return ApiError(429, "too many requests wait already: ask again", "rate_limit_error", code="busy")
