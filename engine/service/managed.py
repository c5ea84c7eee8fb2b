"""One instance as the service holds it: the wish, the placement, its life and its process."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.control import Difference
from engine.core.command import Command
from engine.core.cpuset import CpuSet
from engine.core.errors import ControlError
from engine.core.layout import Instance, Ports
from engine.core.lifecycle import Life, Policy
from engine.core.placement import Placement
from engine.core.status import State
from engine.drivers.registry import driver_of
from engine.host.oom import OomKills
from engine.service.journal import JournalRow, Running
from engine.service.launcher import Launched


@dataclass
class Managed:
    """Changed only by the supervisor, on its event loop."""

    wish: Instance
    placement: Placement
    """Where it shall be; where its process is, `at` tells."""
    base: str
    life: Life
    folder: Path
    layout: str = ""
    """The name of the layout file that asked for it."""
    ports: Ports = field(default_factory=Ports)
    """The range of that file, for when it has to have another port."""
    mark: str = ""
    command: Command | None = None
    """As its plan was shown, until it is started; what starts again later is planned anew."""
    launched: Launched | None = None
    started_at: str | None = None
    launched_at: float | None = None
    """By the supervisor's clock; None where an earlier service has launched it."""
    loading_s: float | None = None
    """What its last start took until its first token; None where nobody of us saw it."""
    verified: bool | None = None
    differences: tuple[Difference, ...] = ()
    """What differs from what was asked, as far as it was looked at since this start."""
    note: str = ""
    """What differs from what was asked, or what it waits for; shown after the state's reason."""
    running: Running | None = None
    """What its process was started with, until nothing of the process is left."""
    going: Running | None = None
    """Where its running process is being moved to just now; it holds both places."""
    oom_kills: OomKills | None = None
    """The kernel's counters from when we began to watch it."""
    forget: bool = False
    """Drop it from the list once it has stopped."""
    patience: Policy = field(default_factory=Policy)
    """Back-off and limits; the wish and the driver say the rest."""
    work: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Effects of one instance are carried out one after the other."""
    pending: int = 0
    """Effects that wait or are being carried out."""

    @property
    def name(self) -> str:
        return self.wish.name

    @property
    def active(self) -> bool:
        """Whether it holds its slot: it runs, is about to, or has not ended yet."""
        return self.life.state in (State.STARTING, State.READY, State.STOPPING, State.BACKOFF)

    @property
    def at(self) -> Running:
        """What its process was started with; with no process, what it would be."""
        return self.running or Running(self.wish, self.placement)

    def occupies(self, wanted: Placement) -> bool:
        """Whether its process, wherever its wish is by now, holds something of a placement."""
        places = [one.placement for one in (self.running, self.going) if one is not None]
        return any(
            held.pus & wanted.pus or set(held.gpus) & set(wanted.gpus) or held.port == wanted.port
            for held in places
        )

    @property
    def held_pus(self) -> CpuSet:
        """Where it shall be, where its process is, and where that is going."""
        going = self.going.placement.pus if self.going else CpuSet()
        return self.placement.pus | self.at.placement.pus | going

    @property
    def url(self) -> str:
        """Where its API listens; a wildcard address is reached through loopback."""
        host = self.at.wish.host
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.at.placement.port}"

    @property
    def api_key(self) -> str | None:
        """The key that its engine asks for, where the layout gave it one."""
        wish = self.at.wish
        variable = driver_of(wish.engine).api_key_variable
        return wish.env.get(variable) if variable else None

    @property
    def policy(self) -> Policy:
        running, driver = self.at.wish, driver_of(self.wish.engine)
        grace_s = running.stop_grace_s
        return replace(
            self.patience,
            restart=self.wish.restart,
            answer_timeout_s=self.wish.answer_timeout_s,
            ready_timeout_s=self.wish.ready_timeout_s or driver.ready_timeout_s,
            stop_grace_s=driver_of(running.engine).stop_grace_s if grace_s is None else grace_s,
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
            ports=self.ports,
            running=self.running,
            forget=self.forget,
        )


def known(managed: Mapping[str, Managed], name: str) -> Managed:
    """The instance of that name; raises ControlError that names those there are."""
    if name in managed:
        return managed[name]
    raise ControlError(
        what=f"There is no instance {name!r}",
        why=f"the service knows: {', '.join(managed) or 'none'}",
        do="Look at `slotdeck status`",
    )
