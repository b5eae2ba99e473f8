"""Replaces itself by an engine that the kernel ends when the owner ends, however the owner ends (Linux only).

usage: _launch.py SIGNAL OWNER_PID PROGRAM [ARGUMENT...]
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(death_signal: str, owner: str, *argv: str) -> None:
    """Asks for the signal, makes sure that the owner is still there to wait for, becomes the engine."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(owner):  # it ended before the request: no signal will come
        sys.exit("the owner has ended")
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(*sys.argv[1:])
