"""What the benchmark of serving counts and how it compares, against a server whose replies are known."""

import asyncio
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from toy_server import KEY, toy_server

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def serving() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serving_benchmark", ROOT / "benchmarks" / "serving.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["serving_benchmark"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_all_tokens_of_all_replies_are_counted(serving: ModuleType) -> None:
    with toy_server() as toy:
        server = serving.Server("ours", toy.url, "toy", {"Authorization": f"Bearer {KEY}"}, pid=os.getpid())
        began = time.process_time()
        measured = asyncio.run(serving.measure(server, 0, 4, 10, 3, 5))
        cpu_seconds = time.process_time() - began
    assert measured.failed == 0
    assert measured.tokens == 50
    assert 0 < measured.api_cpu_seconds < cpu_seconds + 0.05  # /proc counts in hundredths
    assert len(toy.asked) == 10
    assert len({request["messages"][0]["content"] for request in toy.asked}) == 10
    # 10 replies of 5 words of a millisecond each, one after the other.
    assert 0 < measured.tokens_per_second < 1000
    assert len(measured.first_token) == 10
    assert min(measured.first_token) > 0.001
    assert len(measured.between_tokens) == 40
    assert 0.0005 < serving.median_and_p99(measured.between_tokens)[0] < 1


def test_the_99th_percentile_is_of_the_nearest_rank(serving: ModuleType) -> None:
    assert serving.median_and_p99([float(rank) for rank in range(200, 0, -1)]) == (100.5, 198)
    assert serving.median_and_p99([3.0, 1.0]) == (2, 3)


def test_refused_requests_are_failures_and_not_fast_replies(serving: ModuleType) -> None:
    with toy_server() as toy:
        server = serving.Server("ours", toy.url, "toy", {"Authorization": "Bearer wrong"})
        measured = asyncio.run(serving.measure(server, 0, 2, 4, 3, 5))
    assert measured.failed == 4
    assert measured.tokens_per_second == 0


def test_a_rounds_starts_are_compared_by_their_means(serving: ModuleType) -> None:
    def run(name: str, start: int, round: int, rate: float) -> object:
        return serving.Measured(name, start, round, 8, 1, 0, rate, [0.1], [0.1])

    # In whatever order; the machine is slower in the second round, and vllm's second start is half as fast as its first.
    rows = [run("vllm", 2, 0, 50), run("ours", 0, 0, 90), run("ours", 3, 0, 60), run("vllm", 1, 0, 100)]
    rows += [run("ours", 0, 1, 9), run("vllm", 1, 1, 10), run("vllm", 2, 1, 5), run("ours", 3, 1, 6)]
    assert serving.ratios_by_round(rows) == pytest.approx([1.0, 1.0])
    assert serving.ratios_of_starts(rows) == pytest.approx({"ours": 2 / 3, "vllm": 0.5})
    assert serving.ratios_by_round([row for row in rows if row.server == "ours"]) == []
    assert "ours / vllm     1.000   1.000 to 1.000 in 2 rounds; second start / first of vllm 0.500" in serving.table(rows)
    once = [row for row in rows if row.start < 2]
    assert serving.ratios_of_starts(once) == {}
    assert "ours / vllm     0.900" in serving.table(once)


def test_the_cpu_time_of_a_token_is_that_of_the_server_and_of_all_that_it_started(serving: ModuleType) -> None:
    def run(name: str, api: float, whole: float) -> object:
        return serving.Measured(name, 0, 0, 8, 1, 0, 9.0, [0.1], [0.1], whole, api, 100)

    rows = [run("ours", 0.3, 1.1), run("ours", 0.2, 1.0), run("ours", 0.2, 0.9), run("vllm", 0.1, 1.0)]
    cost = serving.cpu_of_a_token(rows)
    assert cost["ours"] == pytest.approx((2, 10))
    assert cost["vllm"] == pytest.approx((1, 10))
    assert "ours 2.000, vllm 1.000; the difference is +10.00 % of vllm's whole, 10.00" in serving.table(rows)

    burn = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint(flush=True); sys.stdin.read()"
    nested = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        alone, whole = serving.cpu_seconds(parent.pid)
        parent.communicate()
    assert whole - alone >= 0.28


def test_the_medians_interval_is_that_of_the_orders_ranks(serving: ModuleType) -> None:
    # Conover, Practical Nonparametric Statistics: of 100 values the 40th and the 61st (binomial, p = 1/2).
    assert serving.median_interval([float(rank) for rank in range(100, 0, -1)]) == (40, 61)
    assert serving.median_interval([5.0]) == (5.0, 5.0)


def test_overload_tells_what_the_excess_got(serving: ModuleType) -> None:
    import argparse

    options = argparse.Namespace(capacity=2, words=3, tokens=5, seconds=1, capacity_seconds=1)
    with toy_server() as toy:
        server = serving.Server("ours", toy.url, "toy", {"Authorization": f"Bearer {KEY}"})
        found = asyncio.run(serving.overload(server, options))
    assert found["requests_per_second_offered"] == pytest.approx(4 * found["requests_per_second_at_capacity"])
    assert set(found["statuses"]) == {200}  # the toy takes all
    assert set(found["large_statuses"]) == {400}  # but no prompt beyond its context
    assert len(found["health"]) == 3


def test_all_servers_get_each_prompt_in_a_drawn_order(serving: ModuleType) -> None:
    with toy_server() as first, toy_server() as second:
        headers = {"Authorization": f"Bearer {KEY}"}
        servers = [serving.Server("ours", first.url, "toy", headers), serving.Server("vllm", second.url, "toy", headers)]
        found = asyncio.run(serving.first_tokens_in_turn(servers, 6, 3))
        refused = serving.Server("vllm", second.url, "toy", {})
        with pytest.raises(SystemExit, match="No prompt"):
            asyncio.run(serving.first_tokens_in_turn([servers[0], refused], 2, 3))
    assert [request["messages"] for request in first.asked][:6] == [request["messages"] for request in second.asked][:6]
    assert [len(row) for row in found] == [2] * 6
    assert min(map(min, found)) > 0.001


def test_the_first_tokens_difference_is_that_of_the_means_for_each_prompt(serving: ModuleType) -> None:
    told = serving.first_token_table(("ours", "vllm", "vllm", "ours"), [[0.2, 0.1, 0.1, 0.2], [0.3, 0.1, 0.3, 0.3]] * 50, 120)
    assert "vllm     200.0 ms" in told
    assert "ours - vllm: +100.00 ms (+100.00 to +100.00, 95 % over prompts, for these starts)" in told
    assert "100 of 120 prompts" in told


def test_the_gateways_own_time_is_measured_on_requests_that_it_lets_through(serving: ModuleType, tmp_path: Path) -> None:
    request_ms, event_ms = serving.gateway_cost(tmp_path, n_requests=50, n_events=32)
    assert 0.02 < request_ms < 20
    assert event_ms < request_ms
    assert len((tmp_path / "gateway.jsonl").read_text().splitlines()) == 100  # of one event and of 32
