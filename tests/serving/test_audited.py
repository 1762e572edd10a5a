"""Our own server before our own audit."""

import pytest
from live_server import Server

from ochat.client.audit import CHECKS, Options, make_subject


@pytest.mark.parametrize("topic", list(CHECKS))
def test_the_audit_finds_no_fault_here(topic: str, server: Server) -> None:
    """Unknown is no verdict here either: our server tells its context, counts tokens, and counts its work in /metrics for this key."""
    findings = list(CHECKS[topic](make_subject(Options(f"{server.url}/v1", key=server.key))))
    assert findings
    assert {f.check: (f.verdict, f.found) for f in findings if f.verdict not in ("pass", "note")} == {}
