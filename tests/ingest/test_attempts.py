"""The account of attempts: what is tried again, what is given up, and how long a store that refuses is left alone."""

from refloom.ingest.engine.retries import ATTEMPTS, PATIENCE_S, Account


def test_a_unit_that_raises_comes_back_first_and_is_given_up_in_the_end():
    account = Account(["a", "b"])
    for number in range(1, ATTEMPTS + 1):
        assert account.take(0) == "a"
        assert account["a"].next == number
        account.raised("a", "a bug")
    assert account.broken == {"a": "a bug"}
    assert [account.take(0), account.take(0)] == ["b", None]


def test_an_item_is_skipped_after_its_attempts_and_the_unit_goes_on():
    account = Account(["a"])
    for _ in range(ATTEMPTS):
        assert not account["a"].skip
        account.crashed(account.take(0), "picture", timed_out=False)
    assert account["a"].skip == {"picture": "killed_worker"}
    assert account.take(0) == "a"
    assert not account.broken


def test_deaths_at_no_item_end_a_unit():
    account = Account(["a"])
    for _ in range(ATTEMPTS):
        account.crashed(account.take(0), None, timed_out=False)
    assert account.broken == {"a": "its worker died 3 times, last at no item"}


def test_a_store_that_refuses_is_left_alone_for_longer_and_longer_and_no_attempt_is_counted():
    account, now, pauses = Account(["a", "b"]), 1000.0, []
    for _ in range(4):
        first, second = account.take(now), account.take(now)
        assert account.refused(first, now)
        assert account.refused(second, now)  # another worker, the same refusal: no longer pause for it
        began = now
        while account.take(now) is None:
            now += 0.5
        account.back("a")
        pauses.append(now - began)
    assert pauses == [1, 2, 4, 8]
    assert account["a"].next == account["b"].next == 1
    account.done()
    assert account.refused(account.take(now), now)
    assert account.take(now + 0.5) is None
    assert account.take(now + 1) is not None


def test_a_store_that_goes_on_refusing_stops_the_job():
    account, now, tries = Account(["a"]), 0.0, 0
    while account.refused(account.take(now), now):
        tries += 1
        while not (found := account.take(now)):
            now += 1
        account.back(found)
    assert PATIENCE_S <= now < 1.1 * PATIENCE_S
    assert 10 < tries < 30
