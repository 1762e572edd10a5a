"""Our counts beside vLLM's on /metrics: vLLM knows neither conditions nor keys, and doesn't count requests whose client left.

They join the library's default registry, which vLLM shows, with several API processes too."""

from collections.abc import Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ("condition", "key")
REQUESTS = Counter("ochat_requests", "Requests that ended, by outcome and status", (*_LABELS, "outcome", "status"))
PROMPT_TOKENS = Counter("ochat_prompt_tokens", "Tokens of prompts", _LABELS)
CACHED_TOKENS = Counter("ochat_cached_tokens", "Tokens of prompts that the prefix cache held", _LABELS)
COMPLETION_TOKENS = Counter("ochat_completion_tokens", "Tokens of replies", _LABELS)
SECONDS = Histogram(
    "ochat_request_seconds",
    "From a request's headers to the end of its reply",
    _LABELS,
    buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
)
IN_FLIGHT = Gauge("ochat_requests_in_flight", "Requests that are being answered", multiprocess_mode="livesum")
UNAUTHORIZED = Counter("ochat_unauthorized", "Requests without a valid key")


def record(row: Mapping[str, Any], is_known: bool) -> None:
    """Count a request by its row of the usage log. Conditions that aren't known share one name: clients make them up."""
    condition = row["condition"] if is_known or not row["condition"] else "other"
    labels = (condition, row["key"] or "")
    REQUESTS.labels(*labels, row["outcome"], str(row["status"])).inc()
    PROMPT_TOKENS.labels(*labels).inc(row["prompt_tokens"])
    CACHED_TOKENS.labels(*labels).inc(row["cached_tokens"])
    COMPLETION_TOKENS.labels(*labels).inc(row["completion_tokens"])
    SECONDS.labels(*labels).observe(row["seconds"])
