"""The process a command runs in: its threads and memory, and what Ctrl-C and SIGTERM mean for a run.

Only the command line changes these; a library leaves its host as it is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

_TRIM, _MMAP = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
EXIT = {signal.SIGINT: 130, signal.SIGTERM: 143}


def settle() -> None:
    """One thread for torch, and freed blocks stay with the process: pages given back come again as zeroed ones."""
    if sys.platform == "linux" and os.environ.get("MANYLOOM_MALLOC") != "default":
        try:
            libc = ctypes.CDLL(None)
            libc.gnu_get_libc_version  # noqa: B018  musl has none
            libc.mallopt(_MMAP, 1 << 30)
            libc.mallopt(_TRIM, (1 << 31) - 1)
        except (OSError, AttributeError):
            pass
    import torch

    torch.set_num_threads(1)


class Stop:
    """First Ctrl-C or SIGTERM: finish the round. Second: stop now. Calling it says whether to stop.

    Args:
        say: shows a line to whoever watches; called from a thread of its own, so that it may wait for the display.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.begun = False  # whether there is a run that could be kept
        self.round = 1  # the one going on
        self.now = False
        self.signal: int | None = None
        self.before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop: asked once after each round, so that what comes next is another round."""
        if self.signal is None:
            self.round += 1
        return self.signal is not None

    @property
    def code(self) -> int | None:
        """The exit code of whatever was asked first."""
        return EXIT.get(signal.Signals(self.signal)) if self.signal is not None else None

    def _take(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None or not self.begun:
            self.signal = self.signal or number
            self.now = True  # an exception that is raised inside a callback of Python's is lost: the loop looks here
            raise KeyboardInterrupt
        self.signal = number
        word = "Ctrl-C again" if number == signal.SIGINT else "a second one"
        text = f"stopping after round {self.round}; {word} stops now and loses only round {self.round}"
        threading.Thread(target=self.say, args=(text,), daemon=True).start()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._take) for s in EXIT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
