"""A report as JSON."""

from engine.bench.values import Report, Schedule
from engine.core.goodput import Goodput
from engine.core.quantiles import Summary

SCHEMA = "slotdeck.bench/1"


def report_json(report: Report) -> dict[str, object]:
    """The `slotdeck.bench/1` object; times in ms, unknown values are None."""
    return {
        "schema": SCHEMA,
        "targets": [
            {
                "name": target.name,
                "url": target.url,
                "concurrency": target.concurrency,
                "rate": target.rate,
                "requests": target.requests,
                "errors": target.errors,
                "ttft_ms": _summary_ms(target.ttft),
                "itl_ms": _summary_ms(target.itl),
                "tpot_ms": _summary_ms(target.tpot),
                "e2e_ms": _summary_ms(target.e2e),
                "output_tokens_per_s": _rounded(target.output_tokens_per_s, 1.0),
                "total_tokens_per_s": _rounded(target.total_tokens_per_s, 1.0),
                "schedule": None if target.schedule is None else _schedule(target.schedule),
                "goodput": None if target.goodput is None else _goodput(target.goodput),
            }
            for target in report.targets
        ],
        "client": {
            "cpu_share": round(report.client.cpu_share, 4),
            "runqueue_wait_share": _rounded(report.client.runqueue_wait_share, 1.0, 4),
            "limited": report.client.limited if report.client.judged else None,
        },
        "manifest": report.manifest,
    }


def _schedule(kept: Schedule) -> dict[str, object]:
    return {
        "arrival": kept.arrival,
        "sent": kept.sent,
        "sent_per_s": _rounded(kept.sent_per_s, 1.0),
        "gap_cv": _rounded(kept.gap_cv, 1.0, 4),
        "max_in_flight": kept.max_in_flight,
        "most_in_flight": kept.most_in_flight,
        "held_back": kept.held_back,
        "unfinished": kept.unfinished,
        "lateness_ms": _summary_ms(kept.lateness),
        "late_share": _rounded(kept.late_share, 1.0, 4),
        "ttft_ms": _summary_ms(kept.ttft),
        "e2e_ms": _summary_ms(kept.e2e),
    }


def _goodput(good: Goodput) -> dict[str, object]:
    limits = good.limits.told()
    return {
        "limits": {f"{name}_ms": _rounded(limit, 1e3) for name, limit in limits.items()},
        "met": good.met,
        "of": good.of,
        "share": _rounded(good.share, 1.0, 4),
        "requests_per_s": _rounded(good.requests_per_s, 1.0),
        "missed": dict(good.missed),
    }


def _summary_ms(summary: Summary) -> dict[str, float | None]:
    return {
        "mean": _rounded(summary.mean, 1e3),
        "p50": _rounded(summary.p50, 1e3),
        "p90": _rounded(summary.p90, 1e3),
        "p99": _rounded(summary.p99, 1e3),
    }


def _rounded(value: float | None, factor: float, digits: int = 3) -> float | None:
    return None if value is None else round(value * factor, digits)
