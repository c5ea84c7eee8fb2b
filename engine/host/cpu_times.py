"""Busy time of each PU from /proc/stat, read once for all of them."""

from engine.host.root import HostRoot

Times = dict[int, tuple[int, int]]
"""PU -> (busy ticks, all ticks) since boot."""


def read_cpu_times(root: HostRoot) -> Times:
    """One pass over the `cpuN` lines (proc_stat(5)); guest time is already in user time."""
    times: Times = {}
    for line in (root.text("proc/stat") or "").splitlines():
        if not line.startswith("cpu"):
            break
        name, *ticks = line.split()
        if name == "cpu" or len(ticks) < 5:
            continue
        try:
            pu = int(name[3:])
            user, nice, system, idle, iowait, *rest = map(int, ticks)
        except ValueError:
            continue
        busy = user + nice + system + sum(rest[:3])
        times[pu] = (busy, busy + idle + iowait)
    return times


def busy_shares(before: Times, after: Times) -> dict[int, float | None]:
    """Busy share 0 to 1 of each PU between two readings; None when no time passed."""
    shares: dict[int, float | None] = {}
    for pu, (busy, total) in after.items():
        old_busy, old_total = before.get(pu, (busy, total))
        elapsed = total - old_total
        shares[pu] = min(1.0, max(0.0, (busy - old_busy) / elapsed)) if elapsed > 0 else None
    return shares
