"""Several runs in one report: the same targets under one load after the other."""

from collections.abc import Sequence
from dataclasses import replace

from engine.bench.report_text import told_load
from engine.bench.values import ClientHealth, Report


def joined(reports: Sequence[Report]) -> Report:
    """A row a target and level; of the client the worst; the manifest tells each level's load."""
    first, *others = reports
    if not others:
        return first
    manifest = {
        **first.manifest,
        "targets": [row for one in reports for row in _rows(one)],
        "levels": [
            {
                "load": one.manifest["load"],
                "started_at": one.manifest["started_at"],
                "client_loop_lag_ms": one.manifest["client_loop_lag_ms"],
                "client_limits": one.manifest["client_limits"],
                "cpu_share": one.client.cpu_share,
                "runqueue_wait_share": one.client.runqueue_wait_share,
            }
            for one in reports
        ],
    }
    targets = tuple(target for one in reports for target in one.targets)
    client = worst([one.client for one in reports])
    limits = [
        f"with {told_load(one.targets[0])} {limit}"
        for one in reports
        for limit in one.client.limits
    ]
    return Report(targets, replace(client, limits=tuple(limits)), manifest)


def _rows(report: Report) -> list[object]:
    rows = report.manifest["targets"]
    assert isinstance(rows, list), "every run's manifest has its targets"
    return rows


def worst(healths: Sequence[ClientHealth]) -> ClientHealth:
    """Each figure by itself."""
    waits = [one.runqueue_wait_share for one in healths if one.runqueue_wait_share is not None]
    cpu_share = max(one.cpu_share for one in healths)
    judged = all(one.judged for one in healths)
    return ClientHealth(cpu_share, max(waits, default=None), judged=judged)
