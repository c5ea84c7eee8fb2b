"""Load on engines with known statistics: `run`, its report, and what both are made of."""

from engine.bench.report import report_json
from engine.bench.report_text import report_text
from engine.bench.runner import loop_factory, run, run_blocking
from engine.bench.values import (
    ClientHealth,
    Load,
    Progress,
    Report,
    Target,
    TargetProgress,
    TargetReport,
)

__all__ = [
    "ClientHealth",
    "Load",
    "Progress",
    "Report",
    "Target",
    "TargetProgress",
    "TargetReport",
    "loop_factory",
    "report_json",
    "report_text",
    "run",
    "run_blocking",
]
