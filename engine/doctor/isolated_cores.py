"""Whether PUs that we may use are kept out of the scheduler's balancing.

Documentation/admin-guide/kernel-parameters.txt, isolcpus=: threads are not spread over isolated
PUs; all that an engine starts stay on the PU where they began, unless each is bound to its own.
"""

from engine.core.checks import Check
from engine.doctor.host import ABSENT, CPU, Host, unknown
from engine.host.lists import read_list

ID = "isolated-cores"


def check(host: Host) -> Check:
    """`isolated`, as far as it is ours."""
    name = f"{CPU}/isolated"
    isolated = read_list(host.root, name)
    if isolated is None:
        return unknown(ID, "isolated PUs are not told", ABSENT, host.seen(name))
    ours = isolated & host.machine.pus.usable
    if not ours:
        return Check(ID, "ok", "no PU that we may use is isolated", host.seen(name))
    return Check(
        ID,
        "advice",
        f"isolated from balancing: PU {ours}",
        host.seen(name),
        "an engine's threads that are not bound one by one all stay on one of them, and the "
        "others do nothing",
        'place engines elsewhere (slot = "pu:…"), let them bind their threads '
        "(OMP_PROC_BIND=close), or take isolcpus= off the kernel's command line",
        "put isolcpus= back on the kernel's command line",
        ("root", "reboot"),
    )
