"""The one counter."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fleetdrv.effects import Cost, Effect, Effects, Kind, Passage


def test_many_threads_lose_no_count() -> None:
    effects = Effects()
    numbers: list[int] = []

    def act(number: int) -> None:
        with effects.passing(Kind.EXEC if number % 2 else Kind.API_WRITE, f"node{number % 3}", "x") as effect:
            numbers.append(effect.number)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(act, range(600)))
    assert sorted(numbers) == list(range(1, 601))
    assert (effects.execs, effects.api_writes) == (300, 300)
    assert effects.by_target == {f"node{n}": {Kind.EXEC: 100, Kind.API_WRITE: 100} for n in range(3)}


def test_each_thread_knows_what_it_has_sent() -> None:
    effects = Effects()

    def act(number: int) -> Cost:
        before = effects.of_this_thread()
        for _ in range(number):
            with effects.passing(Kind.EXEC, "node", "x"), effects.passing(Kind.API_WRITE, "node/node", "y"):
                pass
        return effects.of_this_thread() - before

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(act, range(100))) == [Cost(number, number) for number in range(100)]
    assert effects.of_this_thread() == Cost()


def test_an_effect_that_raised_is_counted_and_told() -> None:
    told: list[tuple[int, Passage]] = []
    effects = Effects(lambda effect, passage: told.append((effect.number, passage)))
    with pytest.raises(KeyboardInterrupt), effects.passing(Kind.EXEC, "a", "swap"):
        raise KeyboardInterrupt
    with effects.passing(Kind.API_WRITE, "node/a", "cordon"):
        assert effects.api_writes == 1
    assert told == [(1, Passage.SENT), (1, Passage.UNANSWERED), (2, Passage.SENT), (2, Passage.ANSWERED)]


def test_a_listener_may_forbid() -> None:
    def forbid(effect: Effect, _: Passage) -> None:
        raise PermissionError(effect.what)

    with pytest.raises(PermissionError, match="swap"), Effects(forbid).passing(Kind.EXEC, "a", "swap"):
        pytest.fail("it went out")


def test_a_quiet_run_can_say_so() -> None:
    effects = Effects()
    assert (effects.execs, effects.api_writes, effects.by_target) == (0, 0, {})
