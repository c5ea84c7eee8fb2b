"""Whether the kernel refuses address space that is asked for and never used.

Documentation/mm/overcommit-accounting.rst: with mode 2 all promises together stay below
CommitLimit. Engines ask for far more than they touch: whole weight files, pools, thread stacks.
"""

import re

from engine.core.checks import Check, Evidence
from engine.doctor.host import ABSENT, Host, unknown

ID = "overcommit"
_FILE = "proc/sys/vm/overcommit_memory"


def check(host: Host) -> Check:
    """`/proc/sys/vm/overcommit_memory`."""
    mode = host.number(_FILE)
    if mode is None:
        return unknown(ID, "how memory is promised is not told", ABSENT, host.seen(_FILE))
    if mode != 2:
        return Check(ID, "ok", "memory is promised freely", host.seen(_FILE))
    text = host.text("proc/meminfo") or ""
    told = dict(re.findall(r"^(CommitLimit|Committed_AS):\s+([0-9]+ kB)$", text, re.M))
    return Check(
        ID,
        "advice",
        "no more memory is promised than there is",
        (*host.seen(_FILE), *(Evidence(f"/proc/meminfo {key}", told[key]) for key in told)),
        'loading may fail with "Cannot allocate memory" while most of it is free',
        "`sudo sysctl vm.overcommit_memory=0` (until the next boot)",
        "`sudo sysctl vm.overcommit_memory=2`",
        ("root",),
    )
