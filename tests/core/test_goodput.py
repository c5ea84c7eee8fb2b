from engine.core.goodput import GoodputCount, Limits


def test_a_request_is_good_when_it_keeps_to_every_limit() -> None:
    count = GoodputCount(Limits(ttft_s=0.2, itl_s=0.05, tpot_s=0.02))
    count.add(0.2, (0.01, 0.05), 0.02, 9.0)
    count.add(0.21, (0.01,), 0.01, 9.0)
    count.add(0.3, (0.01, 0.06), 0.02, 9.0)
    count.add(0.1, (), 0.0, 9.0)
    good = count.result(failed=1, window_s=10.0)
    assert good is not None
    assert (good.met, good.of, good.judged) == (2, 5, 4)
    assert good.missed == {"ttft": 2, "itl": 1}
    assert good.share == 0.4
    assert good.requests_per_s == 0.2


def test_without_limits_there_is_no_goodput_and_without_requests_no_share() -> None:
    assert GoodputCount(Limits()).result(failed=0, window_s=1.0) is None
    nothing = GoodputCount(Limits(e2e_s=1.0)).result(failed=0, window_s=0.0)
    assert nothing is not None
    assert (nothing.share, nothing.requests_per_s) == (None, None)
