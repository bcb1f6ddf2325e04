"""Progress while a run goes on: live on a terminal, plain lines elsewhere, or only warnings.

    with progress("auto") as shown:
        for event in events:
            shown.feed(event)

Whatever is shown is read from events; nothing here waits for the run or makes it wait.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TextIO

from manyloom.core import text
from manyloom.track.folder import table
from manyloom.track.view import View, joined

if TYPE_CHECKING:
    from rich.text import Text

Mode = Literal["auto", "live", "plain", "quiet", "notebook"]
Clock = Callable[[], float]
STYLES = {"dim": "bright_black", "bold": "bold", "bar": "blue", "bad": "red", "warn": "yellow"}
MOST_LOST = 12  # lost replies told one by one; later ones are counted


class Progress(Protocol):
    """Something that shows events."""

    def feed(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Base:
    """Entering and leaving, the state, and what is told above the display."""

    def __init__(self, stream: TextIO, folder: Path | None, clock: Clock) -> None:
        self.stream, self.folder, self.clock = stream, folder, clock
        self.view = View()
        self.told = 0

    def feed(self, event: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def said(self, event: Mapping[str, Any]) -> tuple[str, str] | None:
        """What an event has to say that must stay on the screen: text and style."""
        kind = event.get("type")
        if kind == "note":
            level = "warning" if event.get("level") == "warning" else "note"
            return text.field(level, text.printable(str(event.get("text", "")))), "warn" if level == "warning" else ""
        if kind == "client_lost":
            self.told += 1
            if self.told > MOST_LOST:
                more = "further lost replies are counted, not told one by one"
                return (text.field("lost", more), "dim") if self.told == MOST_LOST + 1 else None
            return text.field("lost", self._lost(event)), "bad"
        if kind in ("round_failed", "round_rejected", "client_skipped", "client_filtered", "resumed"):
            line = text.plain_line(self.view.enriched(event)) or ""
            return line, "warn" if kind != "resumed" else ""
        return None

    def _lost(self, event: Mapping[str, Any]) -> str:
        round_, who = event.get("round"), self.view.who(event)
        why = text.printable(str(event.get("text") or event.get("reason")))
        first = f"{round_}/{self.view.rounds} {who}: {why}"
        detail = event.get("detail")
        if not isinstance(detail, str) or not detail.strip():
            return first
        rows = [text.printable(row.rstrip()) for row in detail.strip().splitlines()]
        if len(rows) == 1:  # the file that holds the traceback
            return f"{first}\nthe full traceback is in {rows[0]}"
        frames = [i for i, row in enumerate(rows) if row.lstrip().startswith("File ")]
        shown = [*(rows[frames[-1] : frames[-1] + 2] if frames else []), rows[-1]]
        return "\n".join([first, *(row.strip()[:70] for row in shown)])


class Plain(_Base):
    """One line a round, `key value` pairs; short rounds grouped to two lines a second."""

    def __init__(
        self,
        stream: TextIO,
        folder: Path | None = None,
        clock: Clock = time.monotonic,
        ending: bool = True,
    ) -> None:
        super().__init__(stream, folder, clock)
        self.ending = ending
        self.held: list[dict[str, Any]] = []
        self.last = -1.0

    def feed(self, event: Mapping[str, Any]) -> None:
        now, kind = self.clock(), event.get("type")
        self.view.feed(event, now)
        if kind == "round_done":
            self.held.append(self.view.enriched(event))
            quick = (text.finite(event.get("seconds")) or 0.0) < 0.1
            if not quick or now - self.last >= 0.5:
                self._round(now)
        elif kind == "run_done":
            self._round(now)
            if self.ending:
                self._print(text.plain_line(self.view.enriched(event)))
        elif kind == "client_lost":
            if self.told <= MOST_LOST:
                self._round(now)
                self.told += 1
                if self.told > MOST_LOST:
                    self._print("lost     further lost replies are counted, not told one by one")
                else:
                    self._print(text.plain_line(self.view.enriched(event)))
        elif line := text.plain_line(self.view.enriched(event)):
            self._round(now)
            self._print(line)

    def _round(self, now: float) -> None:
        if not self.held:
            return
        first, last = self.held[0], self.held[-1]
        if first is not last:
            for key in ("seconds", "bytes_up"):
                known = [e[key] for e in self.held if e.get(key) is not None]
                last[key] = sum(known) if known else None
            ups = [text.finite(table(e, "secure").get("up")) or 0 for e in self.held]
            last["secure"] = {"up": sum(ups)} if any(ups) else None
            judged = [e["metrics"] for e in self.held if e.get("metrics")]
            last["metrics"] = judged[-1] if judged else None
            last["round"] = f"{first['round']}-{last['round']}"
        self._print(text.plain_line(last))
        self.held, self.last = [], now

    def _print(self, line: str | None) -> None:
        if line:
            try:
                print(line, file=self.stream, flush=True)
            except UnicodeEncodeError:
                print(line.encode("ascii", "replace").decode(), file=self.stream, flush=True)

    def close(self) -> None:
        self._round(self.clock())


class Quiet(_Base):
    """Warnings only."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream, None, clock)

    def feed(self, event: Mapping[str, Any]) -> None:
        if event.get("type") == "note" and event.get("level") == "warning":
            print(text.plain_line(event), file=self.stream, flush=True)


class Live(_Base):
    """At most nine lines, redrawn four times a second by a thread of `rich`; the last frame stays."""

    def __init__(
        self,
        stream: TextIO,
        folder: Path | None = None,
        clock: Clock = time.monotonic,
        ascii: bool = False,
        color: bool = True,
    ) -> None:
        from rich.console import Console
        from rich.live import Live as RichLive

        super().__init__(stream, folder, clock)
        self.ascii = ascii
        self.console = Console(file=stream, highlight=False, no_color=None if color else True)
        self.live = RichLive(
            get_renderable=self.rendered, console=self.console, refresh_per_second=4, redirect_stdout=False,
            redirect_stderr=False, vertical_overflow="crop",
        )  # fmt: skip
        self.headed = False

    def rendered(self) -> Text:
        """The frame as `rich` draws it."""
        from rich.text import Text

        width = self.console.width
        lines = self.view.frame(self.clock(), width, self.ascii)
        rows = [Text.assemble(*((t, STYLES.get(s, "")) for t, s in line)) for line in lines]
        for row in rows:
            row.truncate(width)
        return Text("\n").join(rows)

    def feed(self, event: Mapping[str, Any]) -> None:
        self.view.feed(event, self.clock())
        if not self.headed and event.get("type") not in ("run_started", "planned"):
            self._head()
        if (said := self.said(event)) is not None:
            self.console.print(said[0], style=STYLES.get(said[1], ""), markup=False, soft_wrap=True)
        if event.get("type") == "run_done":
            self.close()

    def _head(self) -> None:
        from rich.text import Text

        self.headed = True
        for line in self.view.head(min(80, self.console.width)):
            row = Text.assemble(*((t, STYLES.get(s, "")) for t, s in line))
            self.console.print(row, soft_wrap=True)
        self.console.print()
        self.live.start()

    def close(self) -> None:
        if self.live.is_started:
            self.live.stop()


class Notebook(_Base):
    """A frame in a notebook, updated in place."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        super().__init__(sys.stdout, None, clock)
        self.handle: Any = None
        self.last = -1.0

    def feed(self, event: Mapping[str, Any]) -> None:
        now = self.clock()
        self.view.feed(event, now)
        if now - self.last >= 0.25 or event.get("type") == "run_done":
            self._draw(now)

    def _draw(self, now: float) -> None:
        import html
        from importlib import import_module

        display = import_module("IPython.display")
        self.last = now
        shown = html.escape(joined([*self.view.head(), [], *self.view.frame(now)]))
        frame = display.HTML(f'<pre style="line-height:1.35">{shown}</pre>')
        if self.handle is None:
            self.handle = display.display(frame, display_id=True)
        else:
            self.handle.update(frame)

    def close(self) -> None:
        self._draw(self.clock())


def speaks_utf8(stream: TextIO) -> bool:
    """Whether a stream can show bars and sparklines."""
    return "utf" in (getattr(stream, "encoding", None) or "").lower()


def in_notebook() -> bool:
    """Whether this is a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def progress(
    mode: Mode | None = "auto",
    *,
    stream: TextIO | None = None,
    folder: Path | None = None,
    otherwise: Mode | None = None,
    ending: bool = True,
    color: bool = True,
) -> Progress | None:
    """The display for a mode, or None for silence.

    Args:
        mode: "auto": live on a terminal, a frame in a notebook, else `otherwise`.
        stream: where to write; standard error.
        folder: the run's folder, to name files in it.
        otherwise: what "auto" means elsewhere; a library stays silent, the command line is plain.
        ending: whether plain mode prints the end itself.
        color: False for no colour; `NO_COLOR` and `FORCE_COLOR` are kept in any case.
    """
    out = stream if stream is not None else sys.stderr
    if mode == "auto":
        terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        mode = "live" if terminal else "notebook" if in_notebook() else otherwise
    if mode is None:
        return None
    if mode == "live":
        return Live(out, folder, ascii=not speaks_utf8(out), color=color)
    if mode == "notebook":
        return Notebook()
    return Quiet(out) if mode == "quiet" else Plain(out, folder, ending=ending)
