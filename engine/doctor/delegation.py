"""Whether a layout's `memory_limit` and `cpu_limit` can be kept here.

Documentation/admin-guide/cgroup-v2.rst, Delegation; systemd.resource-control(5), Delegate=.
"""

from engine.core.checks import Check
from engine.doctor.host import Host, unknown

ID = "delegation"


def check(host: Host) -> Check:
    """As a start with both limits would find it."""
    if host.answers is None:
        why = "whose control groups are can only be asked on the running machine"
        return unknown(ID, "whether engines can be limited is not told", why)
    refused = host.answers.limits_refused
    evidence = host.seen("proc/self/cgroup")
    if not refused:
        return Check(ID, "ok", "memory and processor time of engines can be limited", evidence)
    return Check(
        ID,
        "advice",
        f"engines cannot be limited: {'; '.join(dict.fromkeys(why for why, _ in refused))}",
        evidence,
        "layouts with memory_limit or cpu_limit are refused; all others run",
        "; ".join(dict.fromkeys(do for _, do in refused)),
        needs=("a restart of the service",),
    )
