"""Hypothesis for all tests: no deadline, because other work shares these cores."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "slotdeck",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("slotdeck")
