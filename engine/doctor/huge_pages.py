"""Whether memory can come in pages of 2 MiB.

Documentation/admin-guide/mm/transhuge.rst: with `madvise` those get them that ask (PyTorch with
THP_MEM_ALLOC_ENABLE=1, tcmalloc, jemalloc), with `never` nobody does.
"""

import re

from engine.core.checks import Check
from engine.doctor.host import ABSENT, Host, unknown, write

ID = "huge-pages"
_FILE = "sys/kernel/mm/transparent_hugepage/enabled"


def check(host: Host) -> Check:
    """The word in brackets of `enabled`."""
    chosen = re.search(r"\[(\w+)\]", host.text(_FILE) or "")
    if chosen is None:
        return unknown(ID, "transparent huge pages are not told", ABSENT, host.seen(_FILE))
    match chosen.group(1):
        case "always":
            found = "everybody gets huge pages"
        case "madvise":
            found = "those who ask get huge pages (PyTorch: THP_MEM_ALLOC_ENABLE=1)"
        case "never":
            return Check(
                ID,
                "advice",
                "nobody gets transparent huge pages",
                host.seen(_FILE),
                "gigabytes of weights in pages of 4 KiB: each pass over them misses the "
                "processor's table of pages all the time",
                f"{write('madvise', _FILE)} (until the next boot)",
                write("never", _FILE),
                ("root",),
            )
        case other:
            return unknown(ID, f"huge pages: {other}", "that word is not known here")
    return Check(ID, "ok", found, host.seen(_FILE))
