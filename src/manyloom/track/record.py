"""A run as its events tell it: read once, in order, into a `Run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from manyloom.core.text import finite, population
from manyloom.track.facts import NAMED as NAMED
from manyloom.track.facts import THREADS as THREADS
from manyloom.track.facts import Baseline as Baseline
from manyloom.track.facts import Judged as Judged
from manyloom.track.facts import Leak as Leak
from manyloom.track.facts import Loss as Loss
from manyloom.track.facts import Metrics as Metrics
from manyloom.track.facts import Person as Person
from manyloom.track.facts import Release as Release
from manyloom.track.facts import Round as Round
from manyloom.track.facts import Run as Run
from manyloom.track.facts import Spread as Spread
from manyloom.track.folder import Folder, items, table


def read(folder: Folder) -> Run:
    """A run from its folder, also while it goes on.

    Raises: `store-newer`.
    """
    record = folder.record()
    made = of_events(folder.events(), str(record.get("run_id") or folder.name), record)
    made.toml, made.env, made.record = folder.toml(), folder.env(), record
    made.job_digest = record.get("job_digest") or made.job_digest  # more rounds make another job
    return made


def of_events(events: Iterable[Mapping[str, Any]], name: str = "", record: Mapping[str, Any] | None = None) -> Run:
    """A run from its events (without those a `resumed` takes back)."""
    found = record or {}
    run = Run(name, str(found.get("name") or name), str(found.get("status") or "queued"))
    run.started, run.job_digest = found.get("started"), found.get("job_digest")
    run.model_digest, run.rounds_planned = found.get("model_digest"), found.get("rounds_planned")
    _Reader(run).read(events)
    return run


def metrics_of(found: Mapping[str, Any]) -> Metrics:
    """The metrics in an object that may also hold counts."""
    return {k: finite(v) for k, v in found.items() if k not in ("rows", "positives")}


def _whole(value: object) -> int | None:
    v = finite(value)
    return None if v is None else int(v)


def _pair(value: object, otherwise: tuple[str, str]) -> tuple[str, str]:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:  # pyright: ignore[reportUnknownArgumentType]
        return str(value[0]), str(value[1])  # pyright: ignore[reportUnknownArgumentType]
    return otherwise


class _Reader:
    """Folds events into a `Run`, one method a type."""

    def __init__(self, run: Run) -> None:
        self.run, self.round = run, Round(0)
        run.bytes = {k: {"up": 0, "down": 0} for k in ("train", "secure", "evaluate", "statistics")}
        self.judged: dict[tuple[int, str], Judged] = {}
        self.sessions: list[list[str]] = []

    def read(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            t = str(event.get("t") or "")
            if event.get("type") in ("run_started", "resumed") or not self.sessions:
                self.sessions.append([t, t])
            if event.get("type") != "baseline":  # what it is compared with takes none of its time
                self.sessions[-1][1] = t
            take = getattr(self, "_" + str(event.get("type")), None)
            if take is not None:
                take(event)
        run = self.run
        run.seconds = self._took()
        for r in run.rounds:
            for name, s in r.phases.items():
                run.phases[name] = run.phases.get(name, 0.0) + s
        if run.statistics and finite(run.statistics.get("seconds")):
            run.phases["statistics"] = float(run.statistics["seconds"])
        if run.final is None and run.last is not None:
            run.final = run.last.metrics

    def _took(self) -> float:
        told = finite(self.end.get("seconds")) if hasattr(self, "end") else None
        if told is not None and not self.run.resumed:
            return told
        total = 0.0
        for a, b in self.sessions:
            try:
                total += (datetime.fromisoformat(b) - datetime.fromisoformat(a)).total_seconds()
            except ValueError:
                pass
        return total

    def _bytes(self, kind: str, event: Mapping[str, Any]) -> None:
        for way in ("up", "down"):
            self.run.bytes[kind][way] += _whole(event.get(f"bytes_{way}")) or 0

    def _run_started(self, e: Mapping[str, Any]) -> None:
        run = self.run
        run.status, run.name = "running", str(e.get("name") or run.name)
        run.id = run.id or str(e.get("run", ""))
        run.started = run.started or e.get("t")
        run.rounds_planned, run.seed = _whole(e.get("rounds")), _whole(e.get("seed"))
        run.runtime, run.algorithm = e.get("runtime"), e.get("algorithm")
        run.job_digest = e.get("job_digest") or run.job_digest
        run.paper, run.execution = str(e.get("paper") or ""), table(e, "execution")
        run.model, run.source = table(e, "model"), table(e, "source")
        run.client_word = _pair(e.get("client_word"), run.client_word)
        run.row_word = _pair(e.get("row_word"), run.row_word)
        run.metrics = list(dict.fromkeys([*map(str, items(e, "metrics")), "loss"]))
        run.watch, run.target = e.get("watch"), str(e.get("target") or "class")
        run.classes = [str(c) for c in items(e, "classes")]
        run.summary, run.size = table(e, "population"), population(e)
        for c in items(e, "clients"):
            i = int(c["client"])
            labels = [int(n) for n in items(c, "labels")] or None
            run.people[i] = Person(i, str(c.get("name", i)), _whole(c.get("train")), _whole(c.get("test")), labels)

    def _planned(self, e: Mapping[str, Any]) -> None:
        self.run.planned = e
        self.run.privacy = table(e, "privacy") or self.run.privacy
        self.run.sums = table(e, "secure")

    def _statistics(self, e: Mapping[str, Any]) -> None:
        self.run.statistics = e
        self._bytes("statistics", e)

    def _missing(self, e: Mapping[str, Any]) -> None:
        self.run.missing = e

    def _aligned(self, e: Mapping[str, Any]) -> None:
        self.run.aligned = e  # once a session: a resumed run meets again
        self.run.bytes.setdefault("align", {"up": 0, "down": 0})
        self._bytes("align", e)
        self.run.phases["align"] = self.run.phases.get("align", 0.0) + (finite(e.get("seconds")) or 0.0)

    def _leak(self, e: Mapping[str, Any]) -> None:
        pairs = [(finite(e.get(f"{kind}_mean")), finite(e.get(f"{kind}_q95"))) for kind in ("norm", "cosine")]
        party, defence = str(e.get("party")), str(e.get("defence") or "none")
        self.run.leaks.append(Leak(_whole(e.get("round")) or 0, party, defence, *pairs))

    def _tuned(self, e: Mapping[str, Any]) -> None:
        self.run.tuned.take(e)

    _adapter = _tokens = _combined = _sample = _tuned

    def _note(self, e: Mapping[str, Any]) -> None:
        self.run.notes.append(e)

    def _round_started(self, e: Mapping[str, Any]) -> None:
        cohort = [int(c) for c in items(e, "cohort")]
        asked = len(cohort) or _whole(e.get("asked", e.get("cohort"))) or 0
        self.round = Round(int(e["round"]), asked, attempt=_whole(e.get("attempt")) or 0)
        self.run.asked += asked

    def _client_done(self, e: Mapping[str, Any]) -> None:
        run, i, r = self.run, int(e["client"]), int(e["round"])
        person = run.people.setdefault(i, Person(i, str(e.get("name") or run.who(i))))
        if not person.took or person.took[-1] != r:
            person.rounds += 1
            samples = _whole(e.get("samples"))
            person.samples = person.samples if samples is None else (person.samples or 0) + samples
            if run.size <= THREADS:
                person.took.append(r)
            else:
                person.took[:] = [r]

    def _client_lost(self, e: Mapping[str, Any]) -> None:
        run, i = self.run, int(e["client"])
        run.lost_total += 1
        if i in run.people:
            run.people[i].lost += 1
        if len(run.lost) < 10_000:
            reason = str(e.get("reason") or "lost")
            name = str(e.get("name") or run.who(i))
            run.lost.append(Loss(int(e.get("round", 0)), i, name, reason, str(e.get("text") or reason)))

    def _client_filtered(self, e: Mapping[str, Any]) -> None:
        i, at = int(e["client"]), int(e.get("round", 0))
        self.run.filtered[i] += 1
        self.run.sieved[i] = (self.run.sieved[i][0] if i in self.run.sieved else at, at)
        self.round.filtered += 1

    def _released(self, e: Mapping[str, Any]) -> None:
        spent, noise, clip = (finite(e.get(k)) for k in ("epsilon", "noise_multiplier", "clip"))
        what, sampling = str(e.get("what") or "update"), str(e.get("sampling") or "")
        at, attempt = _whole(e.get("round")) or 0, _whole(e.get("attempt")) or 0
        self.run.releases.append(Release(at, attempt, what, spent, noise, clip, sampling))
        self.run.spent = self.run.spent if spent is None else spent

    def _evaluated(self, e: Mapping[str, Any]) -> None:
        self._bytes("evaluate", e)
        r, split = int(e.get("round", 0)), str(e.get("split") or "test")
        clients = table(e, "clients")
        per = {int(k): metrics_of(v) for k, v in clients.items()}
        judged = Judged(r, split, metrics_of(table(e, "metrics")), _whole(e.get("rows")), _whole(e.get("positives")))
        judged.covered = bool(e.get("covered"))
        judged.counts = {int(k): (_whole(v.get("rows")), _whole(v.get("positives"))) for k, v in clients.items()}
        for name in judged.metrics:
            spread = Spread.of(name, (m.get(name) for m in per.values()))
            if spread is not None:
                judged.spread[name] = spread
        for name, told in table(e, "spread").items():
            mean, worst = (finite(told.get(k)) for k in ("mean", "worst_tenth"))
            if mean is not None and worst is not None:
                judged.edges[name] = (mean, worst)
        judged.clients = per
        run = self.run
        previous = run.own if split == "own" else run.last
        if previous is not None and len(previous.clients) > NAMED:
            previous.clients, previous.counts = {}, {}  # curves of single clients are drawn for few only
        if split == "own":
            run.own = judged
            run.last = run.last if run.last is not None and run.last.split != "own" else judged
        else:
            run.last = judged
        if r == 0:
            run.start = judged if run.start is None or split != "own" else run.start
        self.judged[r, split] = judged
        late = next((x for x in reversed(run.rounds[-1:]) if x.round == r), None)
        if late is not None:  # judged after its round was done
            self._attach(late)

    def _attach(self, done: Round) -> None:
        done.test = self.judged.pop((done.round, "test"), done.test)
        done.own = self.judged.pop((done.round, "own"), done.own)

    def _round_done(self, e: Mapping[str, Any]) -> None:
        done = self.round if self.round.round == e["round"] else Round(int(e["round"]))
        done.back, done.lost = _whole(e.get("back")), _whole(e.get("lost")) or 0
        done.filtered = _whole(e.get("filtered")) or done.filtered
        done.attempt = _whole(e.get("attempt")) or 0
        done.asked = done.asked if done.asked is not None else _whole(e.get("asked"))
        done.seconds, done.virtual_s = finite(e.get("seconds")), finite(e.get("virtual_s"))
        done.phases = {k: v for k, raw in table(e, "phases").items() if (v := finite(raw)) is not None}
        done.bytes_up, done.bytes_down = _whole(e.get("bytes_up")), _whole(e.get("bytes_down"))
        done.epsilon, done.guard = self.run.spent, table(e, "guard")
        self._bytes("train", e)
        secure = table(e, "secure")
        done.channel = _whole(secure.get("up")) or 0, _whole(secure.get("down")) or 0
        self._bytes("secure", {f"bytes_{k}": secure.get(k) for k in ("up", "down")})
        self._attach(done)
        self.run.rounds.append(done)
        self.round = Round(0)

    def _round_failed(self, e: Mapping[str, Any]) -> None:
        self.run.failed.append(e)

    def _round_rejected(self, e: Mapping[str, Any]) -> None:
        self.run.rejected.append(e)

    def _resumed(self, e: Mapping[str, Any]) -> None:
        self.run.resumed.append(_whole(e.get("from_round")) or 0)
        self.run.status, self.run.reason, self.run.ended, self.run.settled = "running", None, None, False
        self.run.rounds_planned = _whole(e.get("rounds")) or self.run.rounds_planned

    def _baseline(self, e: Mapping[str, Any]) -> None:
        per = {int(k): metrics_of(v) for k, v in table(e, "clients").items()}
        on_all = {int(k): metrics_of(v) for k, v in table(e, "alone_on_all").items()}
        kind = str(e.get("kind"))
        self.run.baselines[kind] = Baseline(kind, e.get("run"), metrics_of(table(e, "metrics")), per, on_all)

    def _run_done(self, e: Mapping[str, Any]) -> None:
        run, self.end = self.run, e
        run.status, run.reason, run.ended = str(e.get("status") or "done"), e.get("reason"), e.get("t")
        run.error = e.get("error")
        run.final = metrics_of(table(e, "final")) or run.final
        run.next = [str(c) for c in items(e, "next")]
        if privacy := table(e, "privacy"):
            run.privacy, run.spent, run.settled = privacy, finite(privacy.get("epsilon")) or run.spent, True
        run.model_digest = e.get("model_digest") or run.model_digest
