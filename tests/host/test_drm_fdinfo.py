"""What one open GPU file tells, in the words of the kernel's documents of each driver."""

import pytest

from engine.host.drm_fdinfo import DrmClient, EngineTime, busy_share, parse_fdinfo

KIB, MIB = 1 << 10, 1 << 20
I915 = """pos:    0
flags:  0100002
mnt_id: 21
drm-driver: i915
drm-pdev:   0000:03:00.0
drm-client-id:      7
drm-engine-render:      9288864723 ns
drm-engine-copy:        2035071108 ns
drm-engine-video:       0 ns
drm-engine-capacity-video:   2
drm-engine-video-enhance:   0 ns
drm-total-local0:\t300 MiB
drm-resident-local0:\t200 MiB
drm-total-stolen-local0:\t0
drm-total-system0:\t4 KiB
"""
XE = """pos:    0
drm-driver:\txe
drm-client-id:\t3
drm-pdev:\t0000:03:00.0
drm-total-system:       0
drm-total-gtt:  192 KiB
drm-shared-vram0:       16 MiB
drm-total-vram0:        23992 KiB
drm-resident-vram0:     23000 KiB
drm-cycles-rcs: 28257900
drm-total-cycles-rcs:   7655183225
drm-cycles-vcs: 0
drm-total-cycles-vcs:   7655183225
drm-engine-capacity-vcs:        2
drm-cycles-ccs: 12
drm-total-cycles-ccs:   7655183225
drm-engine-capacity-ccs:        4
"""


def test_i915() -> None:
    client = parse_fdinfo(I915)
    assert client == DrmClient(
        "7",
        {"local0": 200 * MIB, "stolen-local0": 0, "system0": 4 * KIB},
        {
            "render": EngineTime(9288864723),
            "copy": EngineTime(2035071108),
            "video": EngineTime(0, None, 2),
            "video-enhance": EngineTime(0),
        },
    )
    assert client.card_bytes == 200 * MIB


def test_xe() -> None:
    client = parse_fdinfo(XE)
    assert client is not None
    assert client.memory_bytes == (23000 + 192) * KIB
    assert client.card_bytes == 23000 * KIB
    assert client.engines["compute"] == EngineTime(12, 7655183225, 4)
    assert set(client.engines) == {"render", "video", "compute"}


def test_what_is_no_gpu_or_tells_nothing() -> None:
    assert parse_fdinfo("pos:\t0\nflags:\t02\n") is None
    silent = parse_fdinfo("drm-driver:\tast\n")
    assert silent == DrmClient(None)
    assert (silent.memory_bytes, silent.card_bytes) == (None, None)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        (EngineTime(0), EngineTime(500_000_000), 0.25),
        (EngineTime(0, None, 2), EngineTime(2_000_000_000, None, 2), 0.5),
        (EngineTime(10, 100), EngineTime(40, 200), 0.3),
        (EngineTime(10, 100, 4), EngineTime(410, 200, 4), 1.0),
        (EngineTime(10, 100), EngineTime(10, 100), 0.0),  # asleep: its own clock stands too
        (EngineTime(10, 100), EngineTime(40, 100), None),
        (EngineTime(10), EngineTime(5), None),  # it began anew
        (EngineTime(10, 100), EngineTime(20, 50), None),
    ],
)
def test_busy_share_over_two_seconds(
    before: EngineTime, after: EngineTime, share: float | None
) -> None:
    assert busy_share(before, after, 2.0) == share
