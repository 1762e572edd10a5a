"""What a licence's name says."""

import re

_NON_COMMERCIAL = re.compile(
    r"(?<![a-z])nc(?![a-z])|non-?\s*commercial|(research|academic)[\s_-]*only|only for (research|academic)|research purposes"
)


def is_non_commercial(licence: str) -> bool:
    """Whether a licence's name says that it forbids commercial use, as cc-by-nc-4.0 does."""
    return bool(_NON_COMMERCIAL.search(licence.lower()))
