"""What the service says when it refuses."""

from __future__ import annotations

import httpx

Refusal = tuple[int, str, str | None]
"""(status, code, param)"""


def refusal(response: httpx.Response) -> Refusal:
    """Status, code and param of an answer that has the documented shape of an error and nothing else."""
    body = response.json()
    error = body["error"]
    assert sorted(body) == ["error"]
    assert sorted(error) == ["code", "message", "param", "request_id", "type"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert error["message"]
    assert "Traceback" not in response.text
    return response.status_code, error["code"], error["param"]
