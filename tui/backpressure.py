"""Whether the terminal still reads what was written: on a slow link frames must be skipped."""

from textual.app import App


def terminal_is_behind(app: App[None]) -> bool:
    """True while an earlier frame waits to be written.

    Reaches into Textual 8.2.8 (pinned): without it keys lag ten seconds behind on 100 kB/s.
    """
    driver = getattr(app, "_driver", None)
    writer = getattr(driver, "_writer_thread", None)
    queue = getattr(writer, "_queue", None)
    return queue is not None and queue.qsize() >= 1
