"""The report's sections: a file each, with `ID`, `title(run)` and `section(run, draw)`, beside a template of its id.

A further section is a further file, its template, and its place in `SECTIONS`. `section` returns what the template
shows, or None where a run has nothing of the kind.
"""

from __future__ import annotations

from manyloom.track.sections import again, bytes, clients, data, job, learning, lost, privacy, result

SECTIONS = (result, learning, clients, data, privacy, bytes, lost, job, again)
