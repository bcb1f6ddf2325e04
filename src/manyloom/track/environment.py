"""Where a run ran: versions, machine, the state of the source."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from manyloom._version import __version__


def environment() -> dict[str, Any]:
    """What `env.json` holds; nothing that names a person or a path."""
    import numpy
    import torch

    return {
        "manyloom": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU",
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    """Commit and dirty flag of the folder that the run was started in, if it is a checkout."""

    def ask(*args: str) -> str:
        return subprocess.run(
            ["git", *args], capture_output=True, text=True, timeout=5, check=True, cwd=Path.cwd()
        ).stdout.strip()

    try:
        return {
            "commit": ask("rev-parse", "HEAD"),
            "dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None
