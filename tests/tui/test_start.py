"""What is loaded before the first frame: no more than it needs."""

import subprocess
import sys

from tests.tui.terminal import ROOT

LATER = (
    *("tomlkit", "aiohttp", "textual_serve", "engine.core.placement", "engine.core.sizing"),
    *("engine.layout_files", "tui.screens.layouts", "tui.screens.save_layout"),
    *("tui.screens.instance", "tui.screens.try_prompt", "tui.screens.new_instance"),
)


def test_the_first_frame_loads_little() -> None:
    program = f"""
import sys, tui.__main__, engine.client, tui.app, tui.widgets.schemes
print([name for name in {LATER!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_arguments_load_no_textual() -> None:
    """So that what is in the way of a panel is told at once."""
    program = "import sys, tui.__main__; tui.__main__.parser(); print('textual' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
