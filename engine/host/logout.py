"""Whether systemd-logind ends a user's processes with the session that started them."""

import os
import pwd
import re

from engine.host.root import HostRoot

_FOLDERS = ("usr/lib/systemd", "run/systemd", "etc/systemd")
"""Of logind.conf and its drop-ins; a later one wins (logind.conf(5))."""
_ON = ("1", "yes", "true", "on", "y", "t")


def our_name() -> str:
    """As logind.conf names users."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without an entry
        return str(os.getuid())


def ends_at_logout(root: HostRoot, user: str) -> str:
    """The file that says so, where we were started in a login session; else empty.

    Only what is in the session's scope is ended (`KillUserProcesses=`, logind.conf(5)), lingering
    or not: what a user manager runs, as under `systemd-run --user`, goes on.
    """
    if not re.search(r"/session-[^/\n]+\.scope", root.content("proc/self/cgroup") or ""):
        return ""
    said = {"KillExcludeUsers": ("root", "")}
    main, *drop_ins = _files(root)
    # What was built in stands there as a comment, `#KillUserProcesses=no`.
    for sign, file in (("#", main), *(("", each) for each in (main, *drop_ins))):
        for key, value in re.findall(rf"^{sign}(\w+)=(.*)$", root.content(file) or "", re.M):
            said[key] = (value.strip(), f"/{file}")
    value, file = said.get("KillUserProcesses", ("", ""))
    only, spared = (
        said.get(key, ("", ""))[0].split() for key in ("KillOnlyUsers", "KillExcludeUsers")
    )
    meant = user in only if only else user not in spared
    return file if value.lower() in _ON and meant else ""


def _files(root: HostRoot) -> list[str]:
    mains = [f"{folder}/logind.conf" for folder in _FOLDERS]
    drop_ins = {
        name: f"{folder}/logind.conf.d/{name}"
        for folder in _FOLDERS
        for name in root.names(f"{folder}/logind.conf.d")
        if name.endswith(".conf")
    }
    there = [file for file in mains if root.content(file) is not None]
    return [there[-1] if there else mains[-1], *(drop_ins[name] for name in sorted(drop_ins))]
