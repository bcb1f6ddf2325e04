"""Which client a name means."""

from __future__ import annotations

from manyloom.data.federation import Federation


def client_index(federation: Federation, name: str) -> int | None:
    """A client by name (any case) or number; None where there is none."""
    if name.isdigit() and int(name) < len(federation):
        return int(name)
    small = len(federation) <= 100_000
    return next((i for i, n in enumerate(federation.names) if n.lower() == name.lower()), None) if small else None
