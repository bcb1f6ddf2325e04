"""Headless Chromium over its debugging pipe: opens a file, keeps what the console said and what was asked for."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-default-apps --disable-extensions --mute-audio "
    "--disable-dev-shm-usage --hide-scrollbars --force-color-profile=srgb --proxy-server=127.0.0.1:9 "
    "--remote-debugging-pipe"
).split()


def chromium() -> str | None:
    """Where Chromium is, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One Chromium with its own profile; a context."""

    def __enter__(self) -> Browser:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        ours, theirs = os.pipe(), os.pipe()  # they read from the first, we from the second

        def wire() -> None:  # the protocol is on descriptors 3 and 4
            a, b = os.dup(ours[0]), os.dup(theirs[1])
            high = [os.dup(x) for x in (a, b)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [str(chromium()), *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(ours[0])
        os.close(theirs[1])
        self.write, self.read = ours[1], theirs[0]
        self.buffer, self.last, self.events = b"", 0, list[dict[str, Any]]()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        for fd in (self.write, self.read):
            os.close(fd)
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self.last += 1
        message = {"id": self.last, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.last:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']}")
                return found["result"]
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            more = os.read(self.read, 1 << 20)
            if not more:
                raise RuntimeError("Chromium went away")
            self.buffer += more
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int = 1280, *, dark: bool = False, script: bool = True) -> Page:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session, width)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        page.call("Emulation.setScriptExecutionDisabled", value=not script)
        del self.events[:]
        page.call("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + 20
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._next())
            assert time.monotonic() < until, "the page did not load"
        return page


class Page:
    """An open page."""

    def __init__(self, browser: Browser, target: str, session: str, width: int) -> None:
        self.browser, self.target, self.session, self.width = browser, target, session, width

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def value(self, expression: str) -> Any:
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    @property
    def height(self) -> int:
        return int(self.value("document.documentElement.scrollHeight"))

    def said(self) -> list[str]:
        """Errors and warnings of the console, and uncaught exceptions."""
        found = []
        for e in self.browser.events:
            method, p = e.get("method"), e.get("params", {})
            if method == "Runtime.exceptionThrown" or (
                method == "Runtime.consoleAPICalled" and p["type"] in ("error", "warning")
            ):
                found.append(json.dumps(p)[:300])
            if method == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
                found.append(p["entry"]["text"])
        return found

    def asked(self) -> list[str]:
        """What was asked of a network or a disk, but for the page itself."""
        urls = [
            e["params"]["request"]["url"] for e in self.browser.events if e.get("method") == "Network.requestWillBeSent"
        ]
        return urls[1:]

    def wide(self) -> list[str]:
        """What stands out over the right edge of the page, outside of boxes that scroll."""
        return self.value("""(() => { const w = document.documentElement.clientWidth, out = [];
          for (const e of document.querySelectorAll('body *')) {
            const r = e.getBoundingClientRect();
            if (r.width && r.right > w + 1 && !e.closest('.scroll, pre, .toc ol, .skip, #tip'))
              out.push([e.tagName, e.className.baseVal ?? e.className, r.right, e.textContent.slice(0, 40)].join(' '));
          } return out.slice(0, 8); })()""")

    def shot(self, path: Path, top: int = 0, height: int | None = None) -> None:
        clip = {"x": 0, "y": top, "width": self.width, "height": height or self.height - top, "scale": 1}
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))

    def pdf(self, path: Path) -> None:
        found = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        self.browser.call("Target.closeTarget", targetId=self.target)
