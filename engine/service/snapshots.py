"""Everything that changes, put together for the screens at one moment."""

from datetime import UTC, datetime

from engine import __version__
from engine.core.cpuset import NodeSet
from engine.core.history import History
from engine.core.status import GpuUse, InstanceStatus, LoadStatus, Snapshot, State
from engine.core.strangers import Stranger
from engine.drivers.registry import driver_of
from engine.service.arranging import Stand
from engine.service.managed import Managed
from engine.service.orders import DUMMY
from engine.service.sampler import FIGURES, Figures, Sample, Subject
from engine.service.supervisor import Supervisor

SILENT_AFTER_S = 3.0


def subjects(supervisor: Supervisor) -> list[Subject]:
    """The engines that have a process to be looked at."""
    return [
        Subject(
            name=managed.name,
            mark=managed.mark,
            pid=managed.launched.pid,
            url=managed.url,
            names=driver_of(managed.at.wish.engine).metric_names,
            nodes=NodeSet.parse(managed.at.placement.memory.nodes),
            ready=managed.life.state is State.READY,
        )
        for managed in supervisor.managed.values()
        if managed.launched is not None
    ]


def snapshot(
    supervisor: Supervisor,
    revision: str,
    sample: Sample,
    load: LoadStatus | None,
    *,
    now: float,
    service_pid: int,
    strangers: tuple[Stranger, ...] = (),
    history: History[Stand] | None = None,
) -> Snapshot:
    """One consistent picture."""
    return Snapshot(
        sampled_at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        revision=revision,
        instances=tuple(
            _status(managed, sample.figures.get(managed.name), now)
            for managed in supervisor.managed.values()
        ),
        numa_nodes=sample.nodes,
        gpus=sample.gpus,
        pus_busy=sample.pus_busy,
        load=load,
        happenings=tuple(supervisor.happenings),
        service_pid=service_pid,
        service_version=__version__,
        strangers=strangers,
        undo=history.undo.what if history and history.undo else "",
        redo=history.redo.what if history and history.redo else "",
    )


def _status(managed: Managed, figures: Figures | None, now: float) -> InstanceStatus:
    life, running, at = managed.life, managed.launched is not None, managed.at
    why = f"{life.why}; {managed.note}" if managed.note else life.why
    if not running:
        figures = Figures(unknown=dict.fromkeys(FIGURES, "it has no process"))
    elif figures is None or figures.mark != managed.mark:
        figures = Figures(unknown=dict.fromkeys(FIGURES, "not sampled yet"))
    elif figures.silent_s > SILENT_AFTER_S:
        why = f"not answering for {figures.silent_s:.0f} s"
    if at.wish.weights == "dummy":
        why = f"{why}; {DUMMY}: its answers mean nothing"
    return InstanceStatus(
        name=managed.name,
        engine=at.wish.engine,
        model=at.wish.model,
        slot=at.placement.slot,
        state=life.state,
        why=why,
        pid=managed.launched.pid if managed.launched else None,
        port=at.placement.port,
        url=managed.url,
        started_at=managed.started_at if running else None,
        restarts=life.restarts,
        pus=str(at.placement.pus),
        memory=at.placement.memory,
        gpus=at.placement.gpus,
        tokens_per_s=figures.tokens_per_s,
        ttft_ms=figures.ttft_ms,
        itl_ms=figures.itl_ms,
        requests=figures.requests,
        kv_cache_used=figures.kv_cache_used,
        cpu_cores_used=figures.cpu_cores_used,
        rss_bytes=figures.rss_bytes,
        gpu_use=_gpu_use(at.placement.gpus, figures, running=running),
        pages_local=figures.pages_local,
        verified=managed.verified if running else None,
        unknown=figures.unknown,
        since_s=max(0.0, now - life.since),
    )


def _gpu_use(placed: tuple[int, ...], figures: Figures, *, running: bool) -> tuple[GpuUse, ...]:
    """What it has open, and those that it was given and has not."""
    used = {one.index: one for one in figures.gpu_use} if running else {}
    why = "none of its processes has it open" if running else "it has no process"
    missing = {gpu: GpuUse(gpu, why=why) for gpu in placed if gpu not in used}
    return tuple(one for _, one in sorted({**used, **missing}.items()))
