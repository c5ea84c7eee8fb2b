"""One instance as the service holds it: the wish, the placement, its life and its process."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from engine.core.layout import Instance
from engine.core.lifecycle import Life, Policy
from engine.core.placement import Placement
from engine.core.status import State
from engine.drivers.registry import driver_of
from engine.service.journal import JournalRow
from engine.service.launcher import Launched


@dataclass
class Managed:
    """Changed only by the supervisor, on its event loop."""

    wish: Instance
    placement: Placement
    base: str
    life: Life
    folder: Path
    layout: str = ""
    """The name of the layout file that asked for it."""
    mark: str = ""
    launched: Launched | None = None
    started_at: str | None = None
    verified: bool | None = None
    note: str = ""
    """What differs from what was asked, or what it waits for; shown after the state's reason."""
    forget: bool = False
    """Drop it from the list once it has stopped."""
    work: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Effects of one instance are carried out one after the other."""

    @property
    def name(self) -> str:
        return self.wish.name

    @property
    def active(self) -> bool:
        """Whether it holds its slot: it runs, is about to, or has not ended yet."""
        return self.life.state in (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)

    @property
    def has_process(self) -> bool:
        return self.launched is not None

    @property
    def url(self) -> str:
        """Where its API listens; a wildcard address is reached through loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.wish.host, self.wish.host)
        return f"http://{host}:{self.placement.port}"

    @property
    def policy(self) -> Policy:
        driver = driver_of(self.wish.engine)
        return Policy(
            restart=self.wish.restart,
            ready_timeout_s=self.wish.ready_timeout_s or driver.ready_timeout_s,
            stop_grace_s=(
                driver.stop_grace_s if self.wish.stop_grace_s is None else self.wish.stop_grace_s
            ),
        )

    def row(self) -> JournalRow:
        """What the journal keeps of it."""
        return JournalRow(
            wish=self.wish,
            placement=self.placement,
            base=self.base,
            life=self.life,
            mark=self.mark,
            launched=self.launched,
            started_at=self.started_at,
            verified=self.verified,
            layout=self.layout,
        )
