"""What a change costs, in words: requests in flight, time to load again, an end at logout."""

from collections.abc import Iterable, Mapping

from engine.core.status import InstanceStatus, State
from engine.host.logout import ends_at_logout, our_name
from engine.host.root import HostRoot
from engine.service.managed import Managed


def losses(
    names: Iterable[str],
    managed: Mapping[str, Managed],
    statuses: Iterable[InstanceStatus],
) -> tuple[str, ...]:
    """What is lost when these end, a line for each that is ready."""
    known = {status.name: status for status in statuses}
    ready = [managed[name] for name in names if name in managed]
    return tuple(
        _loss(one, known.get(one.wish.name)) for one in ready if one.life.state is State.READY
    )


def _loss(one: Managed, status: InstanceStatus | None) -> str:
    running = status.requests.running if status else None
    waiting = status.requests.waiting if status else None
    name, grace = one.wish.name, f"{one.policy.stop_grace_s:g} s"
    again = "loading it again takes time"
    if one.loading_s is not None:
        again = f"loading it again takes about {max(1.0, one.loading_s):.0f} s"
    if running is None:
        return f"{name}: requests in flight, if any, have {grace} to finish; {again}"
    if flying := running + (waiting or 0):
        many = "1 request" if flying == 1 else f"{flying} requests"
        return f"{name}: {many} in flight, with {grace} to finish; {again}"
    return f"{name}: no request in flight; {again}"


def at_logout(root: HostRoot) -> tuple[str, ...]:
    """What becomes of engines that are started now when their user logs out."""
    if file := ends_at_logout(root, our_name()):
        return (
            f"all that is started here ends when you log out (KillUserProcesses=yes in {file}); "
            "for engines that stay: `loginctl enable-linger`, `slotdeck service stop`, then "
            "`systemd-run --user --scope slotdeck …`",
        )
    return ()
