"""The report's sections: a file each, with `ID`, `title(run)` and `section(run, draw)`, beside a template of its id.

A further section is a further file, its template, and its place in `SECTIONS`. `section` returns what the template
shows, or None where a run has nothing of the kind.
"""

from __future__ import annotations

from manyloom.track.sections import (
    adapters,
    again,
    alignment,
    bytes,
    clients,
    data,
    job,
    leak,
    learning,
    lost,
    privacy,
    result,
    samples,
)

SECTIONS = (result, learning, samples, adapters, clients, data, alignment, leak, privacy, bytes, lost, job, again)
