"""Ends an engine when its owner has ended: for systems and callers that the kernel's own signal cannot serve.

usage: _watch.py OWNER_PID OWNER_CREATED ENGINE_PID ENGINE_CREATED SIGNAL
"""

import sys
import time

import psutil

POLL_SECONDS = 0.2
SAME_START_SECONDS = 1.5  # create times shift a little when the system's clock is set


def alive(pid: int, created: float) -> bool:
    """Whether that very process runs, not a later one that was given the same pid."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < SAME_START_SECONDS
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main(owner: str, owner_created: str, engine: str, engine_created: str, death_signal: str) -> None:
    """Waits for either of the two to end."""
    while alive(int(owner), float(owner_created)):
        if not alive(int(engine), float(engine_created)):
            return
        time.sleep(POLL_SECONDS)
    if alive(int(engine), float(engine_created)):
        psutil.Process(int(engine)).send_signal(int(death_signal))


if __name__ == "__main__":
    main(*sys.argv[1:])
