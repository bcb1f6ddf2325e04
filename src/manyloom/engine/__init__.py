"""Execution of client work on a device: speed lives here and only here."""

from manyloom.engine.build import build, fresh
from manyloom.engine.engine import Engine
from manyloom.engine.evaluate import Evaluated
from manyloom.engine.loop import Failed, Group

__all__ = ["Engine", "Evaluated", "Failed", "Group", "build", "fresh"]
