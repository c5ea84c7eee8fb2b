"""Every folder that slotdeck writes to, from the XDG variables, each made private to the user."""

import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.core.errors import ControlError
from engine.host.root import HostRoot
from engine.host.whose import Here, other_owner

_JOURNAL = "journal.json"


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things live; `prepare` makes the folders."""

    runtime: Path
    """Socket and lock; gone after a reboot."""
    state: Path
    """Journal and logs; kept."""
    cache: Path
    """Converted models; may be deleted at any time."""
    data: Path
    """The engines' own environments; kept."""
    shared: Path
    """The state folder of all hosts that share this home; mostly `state` itself."""
    shared_with: str = ""
    """The other host whose journal is in `shared`."""

    @classmethod
    def of(cls, environment: Mapping[str, str], root: HostRoot | None = None) -> "Paths":
        """Paths for this environment (the XDG base directory specification).

        Where several hosts share a home folder, the first that wrote a journal there keeps its
        place, and each other one has a folder of its own beside it.
        """
        uid = os.getuid()
        home = _absolute(environment, "HOME") or _home(uid)
        runtime = _absolute(environment, "XDG_RUNTIME_DIR")
        state = (_absolute(environment, "XDG_STATE_HOME") or home / ".local/state") / "slotdeck"
        here = Here.of(root or HostRoot())
        other = other_owner(state / _JOURNAL, here)
        own = state / "hosts" / here.host
        return cls(
            runtime=runtime / "slotdeck" if runtime else Path(f"/tmp/slotdeck-{uid}"),
            state=own if other or (own / _JOURNAL).exists() else state,
            cache=(_absolute(environment, "XDG_CACHE_HOME") or home / ".cache") / "slotdeck",
            data=(_absolute(environment, "XDG_DATA_HOME") or home / ".local/share") / "slotdeck",
            shared=state,
            shared_with=other,
        )

    @property
    def socket(self) -> Path:
        """The service's control socket."""
        return self.runtime / "control.sock"

    @property
    def lock(self) -> Path:
        """Held by the one service of this user."""
        return self.runtime / "service.lock"

    @property
    def journal(self) -> Path:
        """What runs, for the next service to adopt."""
        return self.state / _JOURNAL

    @property
    def service_log(self) -> Path:
        """The service's own words."""
        return self.state / "service.log"

    @property
    def models(self) -> Path:
        """Bundled models, converted."""
        return self.cache / "models"

    def instance(self, name: str) -> Path:
        """An instance's log and exit record."""
        return self.state / "instances" / name

    def prepare(self) -> None:
        """Make the runtime and state folders, 0700; refuse one that is not ours alone."""
        for folder in dict.fromkeys((self.runtime, self.shared, self.state)):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                found = folder.lstat()
                ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
                if ours and not found.st_mode & stat.S_IWOTH:
                    folder.chmod(0o700)
                    continue
            except OSError as error:
                raise ControlError(
                    what=f"The folder {folder} cannot be used",
                    why=error.strerror or str(error),
                    do="Free some space or name another place in XDG_STATE_HOME and "
                    "XDG_RUNTIME_DIR",
                ) from None
            raise ControlError(
                what=f"The folder {folder} is not safe",
                why="it is a link, or belongs to somebody else, or everybody may write to it",
                do="Remove it, or name another place in XDG_RUNTIME_DIR and XDG_STATE_HOME",
            )


def _absolute(environment: Mapping[str, str], name: str) -> Path | None:
    """The specification says that a relative path is to be ignored."""
    path = environment.get(name, "")
    return Path(path) if path.startswith("/") else None


def _home(uid: int) -> Path:
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:  # a container's user without an entry
        return Path(f"/tmp/slotdeck-home-{uid}")
