"""Hold each key to its limits: requests and tokens in any sixty seconds, and requests at once.

The counts are this process's own, so they are exact for one API process; the launcher refuses limits with several."""

import math
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus

from ochat.serving.keys import Key
from ochat.serving.refusal import Refusal

SECONDS = 60.0


class Window:
    """What was counted in the last sixty seconds."""

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self._total = 0

    def add(self, now: float, amount: int) -> None:
        self._entries.append((now, amount))
        self._total += amount

    def total(self, now: float) -> int:
        while self._entries and self._entries[0][0] <= now - SECONDS:
            self._total -= self._entries.popleft()[1]
        return self._total

    def seconds_until_below(self, now: float, limit: int) -> float:
        """Until the total is below the limit, if nothing is added."""
        left = self.total(now)
        for time, amount in self._entries:
            left -= amount
            if left < limit:
                return time + SECONDS - now
        return 0.0


class Limits:
    """What each key has used, by its name."""

    def __init__(self) -> None:
        self._requests: dict[str, Window] = {}
        self._tokens: dict[str, Window] = {}
        self._running: dict[str, int] = {}

    def admit(self, key: Key, now: float, tokens_of_running: Iterable[int] = ()) -> None:
        """Count a request of the key's that begins. Raises Refusal, and counts nothing, where the key has had its share."""
        if key.concurrent is not None and self._running.get(key.name, 0) >= key.concurrent:
            raise too_many(f"This key may have {key.concurrent} requests at once. Wait for one to end.", 1)
        self.check_tokens(key, now, tokens_of_running)
        if key.requests_per_minute is not None:
            made = self._requests.setdefault(key.name, Window())
            if made.total(now) >= key.requests_per_minute:
                wait = made.seconds_until_below(now, key.requests_per_minute)
                raise too_many(f"This key may make {key.requests_per_minute} requests a minute.", wait)
            made.add(now, 1)
        self._running[key.name] = self._running.get(key.name, 0) + 1

    def check_tokens(self, key: Key, now: float, tokens_of_running: Iterable[int]) -> None:
        """Raise Refusal where the key has had its tokens. A reply's are known once they are made, so that requests which run when the
        limit is reached are finished, and the next one waits."""
        if key.tokens_per_minute is None:
            return
        used = self._tokens.setdefault(key.name, Window())
        running = sum(tokens_of_running)
        if used.total(now) + running >= key.tokens_per_minute:
            # What runs counts for a minute from its end on.
            room = key.tokens_per_minute - running
            wait = used.seconds_until_below(now, room) if room > 0 else SECONDS
            raise too_many(f"This key may have {key.tokens_per_minute} tokens a minute.", wait)

    def finish(self, key: Key, now: float, tokens: int) -> None:
        """Count the end of a request that was admitted, and its tokens."""
        self._running[key.name] -= 1
        if key.tokens_per_minute is not None:
            self._tokens.setdefault(key.name, Window()).add(now, tokens)


def too_many(message: str, seconds: float) -> Refusal:
    """A 429 that says when to come again."""
    wait = max(1, math.ceil(seconds))
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"{message} Try again in {wait} s.", headers={"retry-after": str(wait)})
