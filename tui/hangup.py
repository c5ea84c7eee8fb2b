"""Whether the terminal has gone away: Textual itself would spin on its dead input."""

import select


def hung_up(fd: int) -> bool:
    """True when the other side of this terminal is closed."""
    poller = select.poll()
    try:
        poller.register(fd, select.POLLHUP)
        events = poller.poll(0)
    except (OSError, ValueError):
        return True
    return any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in events)
