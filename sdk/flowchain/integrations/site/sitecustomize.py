"""Found by Python before anything else runs, in processes that `flowchain-instrument` started."""

import os
import sys


def _run_the_host_s_own() -> None:
    """Run the sitecustomize that this one stands before, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    ours, path = sys.modules.pop("sitecustomize", None), list(sys.path)
    sys.path[:] = [folder for folder in path if os.path.abspath(folder or ".") != here]
    try:
        import sitecustomize  # noqa: F401 - the next one on the path
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules["sitecustomize"] = ours
    finally:
        sys.path.extend(folder for folder in path if folder not in sys.path)  # last: nobody looks for more there


def _start() -> None:
    try:
        from flowchain.integrations.starting import start

        start()
    except Exception as error:  # noqa: BLE001 - the host starts in any case
        print(f"flowchain: not instrumented: {error!r}", file=sys.stderr)  # noqa: T201 - no logging is set up yet


_start()
_run_the_host_s_own()
