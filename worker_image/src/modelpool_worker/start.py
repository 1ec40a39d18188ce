"""What runs first in the container: it can be told to stop before the imports of the rest are done.

The first process of a container ignores SIGTERM until it has a handler; without one a pod that is deleted in its first
second would sit out its whole grace period.
"""

import gc
import os
import signal


def main() -> None:
    """Make SIGTERM end the process, then run the worker, which takes the signal over once it can drain."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    gc.disable()  # imports leave nothing to collect; looking for it takes a tenth of them. On again after the warm-up
    from modelpool_worker.__main__ import main as run  # this is what takes its time

    run()


if __name__ == "__main__":
    main()
