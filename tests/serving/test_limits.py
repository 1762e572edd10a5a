import pytest

from ochat.serving.keys import Key, hashed
from ochat.serving.limits import Limits, Window
from ochat.serving.refusal import Refusal


def key(**limits: int) -> Key:
    return Key(name="a", sha256=hashed("a"), **limits)  # type: ignore[arg-type]  # limits are ints


def test_a_window_holds_sixty_seconds() -> None:
    window = Window()
    for time, amount in ((0.0, 5), (30.0, 7), (59.0, 1)):
        window.add(time, amount)
    assert [window.total(time) for time in (59.9, 60.0, 90.0, 119.0)] == [13, 8, 1, 0]


def test_no_sixty_seconds_hold_more_requests_than_the_limit() -> None:
    limits = Limits()
    admitted = []
    for tenth in range(3000):  # five minutes of ten tries a second
        try:
            limits.admit(key(requests_per_minute=7), tenth / 10)
        except Refusal:
            continue
        admitted.append(tenth / 10)
        limits.finish(key(requests_per_minute=7), tenth / 10, 0)
    assert len(admitted) == 35
    assert all(later - earlier >= 60 for earlier, later in zip(admitted, admitted[7:], strict=False))


def test_a_refusal_says_when_to_come_again_and_then_it_works() -> None:
    limits, limited = Limits(), key(requests_per_minute=2)
    limits.admit(limited, 0.0)
    limits.admit(limited, 20.0)
    with pytest.raises(Refusal, match=r"2 requests a minute. Try again in 30 s") as refusal:
        limits.admit(limited, 30.0)
    assert (refusal.value.status, refusal.value.headers) == (429, {"retry-after": "30"})
    limits.admit(limited, 60.0)


def test_tokens_count_when_they_are_made_and_those_of_running_requests_too() -> None:
    limits, limited = Limits(), key(tokens_per_minute=100)
    limits.admit(limited, 0.0)
    limits.admit(limited, 1.0, [60])
    with pytest.raises(Refusal, match="100 tokens a minute"):
        limits.admit(limited, 2.0, [60, 40])
    with pytest.raises(Refusal, match="Try again in 60 s"):  # what runs counts from its end on
        limits.admit(limited, 2.0, [60, 40])
    limits.finish(limited, 3.0, 150)
    with pytest.raises(Refusal, match="Try again in 59 s"):
        limits.admit(limited, 4.0)
    limits.admit(limited, 63.0)


def test_requests_at_once_are_counted_until_they_end() -> None:
    limits, limited = Limits(), key(concurrent=2)
    for time in (0.0, 1.0):
        limits.admit(limited, time)
    with pytest.raises(Refusal, match="2 requests at once"):
        limits.admit(limited, 2.0)
    limits.finish(limited, 3.0, 5)
    limits.admit(limited, 4.0)


def test_a_request_that_is_refused_counts_for_nothing() -> None:
    limits, limited = Limits(), key(concurrent=1, requests_per_minute=2)
    limits.admit(limited, 0.0)
    for _ in range(5):
        with pytest.raises(Refusal, match="at once"):
            limits.admit(limited, 1.0)
    limits.finish(limited, 2.0, 0)
    limits.admit(limited, 3.0)


def test_a_key_without_limits_and_another_key_are_not_held_back() -> None:
    limits = Limits()
    for _ in range(1000):
        limits.admit(key(), 0.0)
    limits.admit(Key(name="b", sha256=hashed("b"), concurrent=1), 0.0)


def test_what_runs_leaves_less_room_for_what_was_counted() -> None:
    limits, limited = Limits(), key(tokens_per_minute=100)
    for start in (0.0, 30.0):
        limits.admit(limited, start)
        limits.finish(limited, start, 40)
    with pytest.raises(Refusal, match="Try again in 20 s"):  # the first forty's minute ends then
        limits.admit(limited, 40.0, [30])
    with pytest.raises(Refusal, match="Try again in 50 s"):
        limits.admit(limited, 40.0, [60])
