"""The command line: `manyloom VERB`. One file a family of verbs; nothing here imports torch before a verb needs it."""

from __future__ import annotations

import sys


def main() -> None:
    """The program `manyloom`: runs one verb and exits with its code."""
    from manyloom.cli.app import entry

    sys.exit(entry(sys.argv[1:]))
