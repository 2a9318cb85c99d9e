from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from device_agents.api import BenchmarkSpec, Measurement, Verdict
from device_agents.errors import DeviceUnavailableError, ModelError, SpecError
from device_agents.pool import DevicePool, PoolSettings
from tests.support.agents import FunctionAgent, fake_info, steady

SPEC = BenchmarkSpec()
WAIT_S = 120
SOON = PoolSettings(quarantine_s=0.01)


def echo(model: bytes, _: BenchmarkSpec) -> Measurement:
    return steady(float(model))


def lost(*_: object) -> Measurement:
    raise DeviceUnavailableError("unplugged")


def test_every_candidate_gets_its_own_answer_in_order() -> None:
    with DevicePool([FunctionAgent(echo) for _ in range(3)]) as pool:
        futures = [pool.submit(str(i).encode(), SPEC) for i in range(1, 40)]
        assert [f.result(WAIT_S).latency_ms for f in futures] == list(range(1, 40))


def test_the_next_candidate_is_written_while_one_is_being_measured() -> None:
    writing_second, measuring_first = threading.Event(), threading.Event()

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model == b"1":
            measuring_first.set()
            assert writing_second.wait(WAIT_S)
        return echo(model, spec)

    def second() -> bytes:
        assert measuring_first.wait(WAIT_S)
        writing_second.set()
        return b"2"

    with DevicePool([FunctionAgent(measure)]) as pool:
        futures = [pool.submit(b"1", SPEC), pool.submit(second, SPEC)]
        assert [f.result(WAIT_S).latency_ms for f in futures] == [1, 2]


def test_no_more_candidates_are_written_ahead_than_asked_for() -> None:
    release, written = threading.Event(), []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        assert release.wait(WAIT_S)
        return echo(model, spec)

    def write(number: int) -> bytes:
        written.append(number)
        return str(number).encode()

    with DevicePool([FunctionAgent(measure)], PoolSettings(prefetch=2, together=1)) as pool:
        futures = [pool.submit(lambda n=n: write(n), SPEC) for n in range(1, 9)]
        while pool.status()[0].state != "measuring" or len(written) < 3:
            threading.Event().wait(0.005)
        # One is being measured and two are ready; the others are not even begun.
        assert written == [1, 2, 3]
        release.set()
        wait(futures, WAIT_S)
    assert written == list(range(1, 9))


@pytest.mark.parametrize(("cores", "overlaps"), [(None, False), ((0,), True)])
def test_on_this_host_writing_keeps_off_the_measured_cores(
    cores: tuple[int, ...] | None, overlaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[tuple[int, ...]] = []
    monkeypatch.setattr("device_agents.pool.allowed_cores", lambda: (0, 1))
    monkeypatch.setattr("os.sched_setaffinity", lambda _, c: moves.append(tuple(sorted(c))))
    measuring, busy_while_writing = threading.Event(), []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        measuring.set()
        threading.Event().wait(0.1)
        measuring.clear()
        return echo(model, spec)

    def write() -> bytes:
        busy_while_writing.append(measuring.is_set())
        return b"2"

    agent = FunctionAgent(measure, fake_info(on_host=True))
    with DevicePool([agent]) as pool:
        first = pool.submit(b"1", SPEC)
        assert measuring.wait(WAIT_S)
        second = pool.submit(write, SPEC.replace(cores=cores))
        assert first.result(WAIT_S).ok
        assert second.result(WAIT_S).ok
    assert busy_while_writing == [overlaps]
    assert moves == ([(1,), (0, 1)] if overlaps else [])


def test_a_writer_that_fails_is_a_verdict() -> None:
    def fail() -> bytes:
        raise ValueError("no such layer")

    with DevicePool([FunctionAgent(echo)]) as pool:
        broken, good = pool.submit(fail, SPEC), pool.submit(b"3", SPEC)
        assert broken.result(WAIT_S).verdict is Verdict.CONVERT_FAILED
        assert "no such layer" in broken.result().detail
        assert good.result(WAIT_S).ok


def test_a_candidate_whose_device_is_lost_is_measured_by_another_of_the_same_kind() -> None:
    with DevicePool([FunctionAgent(lost), FunctionAgent(echo)], SOON) as pool:
        futures = [pool.submit(str(i).encode(), SPEC) for i in range(1, 20)]
        assert [f.result(WAIT_S).latency_ms for f in futures] == list(range(1, 20))


def test_candidates_never_move_to_another_kind() -> None:
    phone, board = fake_info(model="phone"), fake_info(model="board")
    agents = [FunctionAgent(lost, phone), FunctionAgent(echo, board)]
    with DevicePool(agents, SOON) as pool:
        on_phone = pool.submit(b"1", SPEC, phone.fingerprint)
        on_board = pool.submit(b"1", SPEC, board.fingerprint)
        assert on_board.result(WAIT_S).ok
        assert on_phone.result(WAIT_S).verdict is Verdict.DEVICE_LOST  # it answers, but not with this candidate
        assert "unplugged" in on_phone.result().detail
        assert pool.kinds == {phone.fingerprint: "phone", board.fingerprint: "board"}


def test_the_kind_must_be_named_when_there_are_several() -> None:
    agents = [FunctionAgent(echo, fake_info(model=m)) for m in ("phone", "board")]
    with DevicePool(agents) as pool:
        for kind in (None, "other"):
            with pytest.raises(DeviceUnavailableError, match="phone"):
                pool.submit(b"1", SPEC, kind)


def test_a_failing_device_is_quarantined_and_comes_back_when_it_answers() -> None:
    plugged, checks = threading.Event(), []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        return echo(model, spec) if plugged.is_set() else lost()

    def check() -> None:
        checks.append(1)
        if not plugged.is_set():
            if len(checks) > 3:
                plugged.set()
            raise DeviceUnavailableError("still unplugged")

    agent = FunctionAgent(measure, check=lambda: check() if started.is_set() else None)
    started = threading.Event()
    with DevicePool([agent], PoolSettings(max_tries=9, max_faults=2, quarantine_s=0.01)) as pool:
        started.set()
        assert pool.submit(b"5", SPEC).result(WAIT_S).latency_ms == 5
        (status,) = pool.status()
        assert status.faults == 1
        assert status.state != "quarantined"
    assert len(checks) > 3


@pytest.mark.parametrize("max_tries", [1, 3, 9])
@pytest.mark.parametrize("max_faults", [1, 3])
def test_no_candidate_is_to_blame_for_a_device_that_is_gone_for_good(max_tries: int, max_faults: int) -> None:
    started = threading.Event()
    agent = FunctionAgent(lost, check=lambda: lost() if started.is_set() else None)
    settings = PoolSettings(max_tries=max_tries, max_faults=max_faults, quarantine_s=0.01, lost_after_s=0.03)
    with DevicePool([agent], settings) as pool:
        started.set()
        futures = [pool.submit(b"1", SPEC) for _ in range(5)]
        for future in futures:
            with pytest.raises(DeviceUnavailableError, match=r"answers any more.*unplugged"):
                future.result(WAIT_S)
        assert pool.status()[0].faults <= max_tries * len(futures)


def test_a_candidate_that_takes_its_device_down_each_time_is_given_up_once_that_is_back() -> None:
    """Not measured for ever, and not mistaken for the end of the device."""
    down, crashes = threading.Event(), []

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        if model == b"crash":
            crashes.append(1)
            down.set()
            lost()
        return echo(model, spec)

    def check() -> None:
        if down.is_set():
            down.clear()  # it has started again when it is asked the next time
            lost()

    settings = PoolSettings(max_tries=3, max_faults=1, quarantine_s=0.01)
    with DevicePool([FunctionAgent(measure, check=check)], settings) as pool:
        futures = [pool.submit(model, SPEC) for model in (b"crash", b"2")]
        assert futures[0].result(WAIT_S).verdict is Verdict.DEVICE_LOST
        assert futures[1].result(WAIT_S).latency_ms == 2
    assert len(crashes) == 3


def test_settings_that_do_not_fit_are_the_callers_error_not_a_fault_of_the_device() -> None:
    def refuse(*_: object) -> Measurement:
        raise SpecError("no core 99")

    with DevicePool([FunctionAgent(refuse)]) as pool:
        with pytest.raises(SpecError, match="no core 99"):
            pool.submit(b"1", SPEC).result(WAIT_S)
        assert pool.status()[0].faults == 0


def test_a_bug_in_an_agent_reaches_the_caller() -> None:
    def bug(*_: object) -> Measurement:
        raise ZeroDivisionError

    with DevicePool([FunctionAgent(bug)]) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(b"1", SPEC).result(WAIT_S)


def test_closing_finishes_what_is_measured_cancels_the_rest_and_closes_the_agents() -> None:
    measuring, release = threading.Event(), threading.Event()

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        measuring.set()
        assert release.wait(WAIT_S)
        return echo(model, spec)

    agent = FunctionAgent(measure)
    pool = DevicePool([agent], PoolSettings(together=1))
    futures = [pool.submit(b"1", SPEC) for _ in range(6)]
    assert measuring.wait(WAIT_S)
    closing = threading.Thread(target=pool.close)
    closing.start()
    wait(futures[1:], WAIT_S)
    release.set()
    closing.join(WAIT_S)
    assert futures[0].result(WAIT_S).ok
    for future in futures[1:]:
        with pytest.raises(CancelledError):
            future.result(0)
    assert agent.closed
    with pytest.raises(DeviceUnavailableError, match="closed"):
        pool.submit(b"1", SPEC)


def test_a_cancelled_candidate_is_skipped() -> None:
    release = threading.Event()

    def measure(model: bytes, spec: BenchmarkSpec) -> Measurement:
        assert release.wait(WAIT_S)
        return echo(model, spec)

    with DevicePool([FunctionAgent(measure)]) as pool:
        futures = [pool.submit(b"1", SPEC) for _ in range(8)]
        assert futures[-1].cancel()
        release.set()
        assert all(f.result(WAIT_S).ok for f in futures[:-1])


def test_a_pool_without_devices_is_refused() -> None:
    with pytest.raises(DeviceUnavailableError, match="at least one"):
        DevicePool([])


def test_senseless_pool_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="prefetch"):
        PoolSettings(prefetch=0)


# Running


class Doubling(FunctionAgent):
    """Runs by doubling its inputs, once it answers; a model named `bad` does not work."""

    lost = 0

    def run(self, model: bytes, inputs: Sequence[Any]) -> list[Any]:
        if model == b"bad":
            raise ModelError("no such operator")
        if self.lost:
            self.lost -= 1
            raise DeviceUnavailableError("unplugged")
        return [2 * value for value in inputs]


def test_models_are_run_by_a_device_that_is_free_and_again_if_it_is_lost() -> None:
    agent = Doubling(echo)
    agent.lost = 2
    with DevicePool([agent], SOON) as pool:
        assert pool.run(b"model", [1, 2]).result(WAIT_S) == [2, 4]  # type: ignore[list-item]
        with pytest.raises(ModelError, match="no such operator"):
            pool.run(b"bad", []).result(WAIT_S)
        agent.lost = 99
        with pytest.raises(DeviceUnavailableError, match="lost by 3"):
            pool.run(b"model", []).result(WAIT_S)
        assert pool.submit(b"1", SPEC).result(WAIT_S).ok
        assert pool.status()[0].measured == 1
