"""What holds for the doctor's answer about any machine."""

from engine.doctor.host import Host
from engine.doctor.registry import examine


def sound(host: Host) -> dict[str, str]:
    """The state of each check, once each is a whole answer."""
    checks = examine(host)
    assert len({one.id for one in checks}) == len(checks)
    for one in checks:
        assert one.found
        assert one.why or one.state == "ok", one
        assert one.do or one.state in ("ok", "unknown"), one
        assert all(each.path for each in one.evidence)
    return {one.id: one.state for one in checks}
