"""The gate: what may leave a client. Pure; every runtime calls it before a reply goes out."""

from manyloom.gate.door import Slot, leave

__all__ = ["Slot", "leave"]
