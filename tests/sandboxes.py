"""The mark of tests that run code in the sandbox: skipped, saying why, where it can't start."""

import pytest

from ochat.errors import OchatError
from ochat.sandbox import check_sandbox


def _problem() -> str:
    try:
        check_sandbox()
    except OchatError as error:
        return str(error)
    return ""


_found = _problem()
needs_sandbox = pytest.mark.skipif(bool(_found), reason=_found or "the sandbox works")
