"""The one error tree: every error says what happened, why, and what the reader can do."""


class ControlError(Exception):
    """Base of all errors that a user may meet.

    `exit_code` is what the command line returns for it (0 done, 1 failed, 2 bad usage or layout,
    3 a placement is refused, 4 not ready in time, 130 interrupted).
    """

    exit_code = 1

    def __init__(self, *, what: str, why: str, do: str) -> None:
        super().__init__(f"{what}: {why}. {do}")
        self.what, self.why, self.do = what, why, do


class UsageError(ControlError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class LayoutError(ControlError):
    """A layout file that cannot be read or has a mistake; `why` names file and line."""

    exit_code = 2


class SlotError(ControlError):
    """A slot that cannot be parsed, or that this machine does not have."""

    exit_code = 2


class PlacementRefused(ControlError):
    """At least one wished-for instance has no lawful place; nothing was started."""

    exit_code = 3


class MachineDiffers(ControlError):
    """A layout was saved on a machine of another shape; nothing was placed."""

    exit_code = 3


class NotReadyInTime(ControlError):
    """An instance was started but did not become ready within the time asked for."""

    exit_code = 4


class StaleOffer(ControlError):
    """An offer made for a machine or set of instances that has changed since."""


class LaunchError(ControlError):
    """An instance could not be started; nothing of it was left behind."""


class ServiceUnreachable(ControlError):
    """The service cannot be reached, or could not be started."""


class EngineUnreachable(ControlError):
    """An engine's HTTP API does not answer, or answers with an error."""


class CannotPlace(Exception):
    """Inside placement: a wish has no lawful place; becomes a `Refusal`, never an exit."""

    def __init__(self, why: str, do: str) -> None:
        super().__init__(f"{why}. {do}")
        self.why, self.do = why, do
