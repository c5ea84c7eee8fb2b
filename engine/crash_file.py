"""Keeps the details of a crash in a file that only the user can read."""

import os
import secrets
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from engine.core.errors import ControlError
from engine.host.paths import Paths

FOLDER = "crashes"
KEPT = 8
"""Older ones are deleted."""


def keep(error: BaseException, about: str, environment: Mapping[str, str]) -> Path:
    """Write the error's stack beside the journal. Raises ControlError where that cannot be.

    Values of local variables are not in it: among them may be keys and prompts.
    """
    paths = Paths.of(environment)
    paths.prepare()
    folder = paths.state / FOLDER
    at = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{at}-{secrets.token_hex(3)}.txt"
    text = f"{about}\n\n{''.join(traceback.format_exception(error))}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as opened:
            opened.write(text.encode(errors="backslashreplace"))
        for old in sorted(folder.glob("*.txt"))[:-KEPT]:
            old.unlink(missing_ok=True)
    except OSError as problem:
        raise ControlError(
            what=f"{path} was not written",
            why=problem.strerror or str(problem),
            do="Free some space, or name another place in XDG_STATE_HOME",
        ) from None
    return path
