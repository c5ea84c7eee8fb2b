"""`slotdeck verify`: words and JSON of what differs, and its exit codes."""

import json
from collections.abc import Callable

from engine.cli.verify import verify_json, verify_text
from engine.control import Difference, Verification, Verified
from tests.cli.conftest import Said

OFF = Difference("affinity", "PU 0-3", "2 threads may run on PU 7", "`slotdeck verify b --repair`")
FOUND = Verification(
    (
        Verified("a", verified=True),
        Verified("b", verified=False, differences=(OFF,), repaired=("1 thread moved",)),
    )
)


def test_each_difference_says_asked_got_and_do() -> None:
    assert verify_text(FOUND, 60).splitlines() == [
        "a: as asked",
        "b: repair: 1 thread moved",
        "b: differs",
        "  affinity",
        "    asked: PU 0-3",
        "    got:   2 threads may run on PU 7",
        "    do:    `slotdeck verify b --repair`",
    ]
    assert max(map(len, verify_text(FOUND, 30).splitlines())) <= 30


def test_verify_json_has_the_keys_of_the_contract() -> None:
    said = json.loads(json.dumps(verify_json(FOUND)))
    assert said["schema"] == "slotdeck.verify/1"
    assert [set(one) for one in said["instances"]] == [{"name", "verified", "differences"}] * 2
    assert said["instances"][1]["differences"] == [
        {
            "what": "affinity",
            "asked": "PU 0-3",
            "got": "2 threads may run on PU 7",
            "do": "`slotdeck verify b --repair`",
        }
    ]
    told = verify_json(FOUND, repaired=True)["instances"][1]
    assert list(told["repaired"]) == ["1 thread moved"]


def test_with_nothing_running_there_is_nothing_to_compare(say: Callable[..., Said]) -> None:
    said = say("verify")
    assert said.code == 0
    assert said.out.startswith("No instance is ready")
    assert json.loads(say("verify", "--json").out) == {
        "schema": "slotdeck.verify/1",
        "instances": [],
    }
    missing = say("verify", "nobody")
    assert missing.code == 1
    assert "There is no instance 'nobody'" in missing.err
