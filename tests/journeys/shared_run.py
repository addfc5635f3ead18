"""`lth run` as one of torchrun's ranks, with a checkpoint after every epoch, and an accident.

    torchrun ... -m tests.journeys.shared_run RANK SIGNAL ARGUMENTS OF lth run

sends the signal to that rank, when torchrun first starts it, after the next checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from lthlib.cli import main, options
from lthlib.training import Network

gradients, machine = Network.gradients, options.machine_of


def slowly(self: Network, *args: Any) -> Any:
    time.sleep(0.02)
    return gradients(self, *args)


def newest(store: Path) -> float:
    return max((p.stat().st_mtime for p in store.glob("runs/*/checkpoint.safetensors")), default=0)


def hurt(store: Path, number: int) -> None:
    before = newest(store)
    while newest(store) == before:
        time.sleep(0.01)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    rank, name, *arguments = sys.argv[1:]
    first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if os.environ["RANK"] == rank and first:
        store = Path(arguments[arguments.index("--store") + 1])
        accident = (store, signal.Signals[name])
        threading.Thread(target=hurt, args=accident, daemon=True).start()
    Network.gradients = slowly  # type: ignore[method-assign]
    options.machine_of = lambda *given: replace(machine(*given), checkpoint_every=0.0)
    sys.argv = ["lth", "run", *arguments]
    main()
