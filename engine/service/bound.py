"""Becomes another program that ends when its parent does: `python -I -S bound.py PARENT ARGV…`."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> int:
    parent, *argv = sys.argv[1:]
    # Kept across exec (prctl(2)); the parent may have ended just before.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):
        return 1
    return os.execv(argv[0], argv)


if __name__ == "__main__":
    sys.exit(main())
