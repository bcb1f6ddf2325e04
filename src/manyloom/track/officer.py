"""The card's part for those who answer for the data: the guarantee, and thirteen questions with their answers."""

from __future__ import annotations

import json
import math
from typing import Any, cast

from manyloom.core import text
from manyloom.track import parties, promise
from manyloom.track.record import Run
from manyloom.track.verdict import PEOPLE


def line(name: str) -> str:
    """A name as Markdown text: no line ends, no markup."""
    plain = text.printable(name)
    for sign in "\\`*_[]<>|#":
        plain = plain.replace(sign, "\\" + sign)
    return plain


# ---- front matter


def front(run: Run) -> list[str]:
    """The lines of the `manyloom:` block about protection; epsilon is rounded up."""
    lines = ["  privacy: none"]
    if found := promise.claims(run):
        p = cast("dict[str, Any]", run.privacy)
        told: dict[str, object] = {"epsilon": _up(found[0].epsilon)}
        told |= {k: p[k] for k in ("delta", "unit", "adjacency", "accountant", "budget") if p.get(k) is not None}
        told |= {"epsilon_without_amplification": _up(found[1].epsilon)} if len(found) > 1 else {}
        lines = ["  privacy: {" + ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in told.items()) + "}"]
    if run.sums:
        keys = ("mode", "least", "threshold", "gamma", "fidelity")
        told = {k: run.sums[k] for k in keys if run.sums.get(k) is not None}
        lines.append("  secure: {" + ", ".join(f"{k}: {json.dumps(v)}" for k, v in told.items()) + "}")
    return lines


def _up(value: float) -> float:
    return math.ceil(value * 10_000 - 1e-9) / 10_000


# ---- privacy


def privacy(run: Run) -> str:
    """The section on privacy; empty where nothing protects the run: the table below says so."""
    found = promise.claims(run)
    if run.role is not None or not (found or run.secure):
        return ""
    if not found:
        said = f"**The hub saw {promise.sums(run)}.** There is no ε: how much the sums and the model tell about one " \
            f"{run.row_word[0]} is not bounded."  # fmt: skip
        return "\n".join(["## Privacy", "", said, "", *_terms(run), "", "**Not promised:**", "",
                          *(f"- {line(x)}" for x in promise.limits(run))])  # fmt: skip
    p = cast("dict[str, Any]", run.privacy)
    budget = text.finite(p.get("budget"))
    of = f" of a budget of {budget:g}" if budget is not None else ""
    value = f"{text.epsilon(found[0].epsilon)}{of}"
    head = f"**ε = {value} at δ = {text.delta(p['delta'])}, for {promise.protected(run)}.**"
    if run.spent is None:
        head += " Nothing was released yet; this is the plan."
    lines = ["## Privacy", "", head, "", "| against | ε | odds at most × | counted as |", "|---|--:|--:|---|"]
    for c in found:
        ahead = " (when all rounds are done)" if c.planned and run.spent is not None else ""
        lines.append(f"| {line(c.against)} | {text.epsilon(c.epsilon)}{ahead} | {text.factor(c.epsilon)} | "
                     f"{line(c.sampling)}; {line(c.accountant)} |")  # fmt: skip
    if noise := promise.noise(run):
        lines += ["", f"Noise: {noise}."]
    if run.secure:
        lines += ["", f"The hub saw {promise.sums(run)}.", "", *_terms(run)]
    assumed = dict.fromkeys(a for c in found for a in c.assumes)
    for title, items in (("This holds if", [*assumed]), ("Not covered by ε", [str(u) for u in p["uncovered"]])):
        lines += ["", f"**{title}:**", "", *(f"- {line(x)}" for x in items or ["nothing further"])]
    if promise.amplified(run):
        lines += ["", "Who took part when, lost replies and bytes are not in this card: the first ε counts on readers "
                  "not knowing them."]  # fmt: skip
    return "\n".join(lines)


def _terms(run: Run) -> list[str]:
    return [f"- {name}: {line(said)}" for name, said in promise.channel(run)]


# ---- thirteen questions


def table(run: Run) -> str:
    """Thirteen questions of a data-protection officer."""
    one, rows = run.client_word[0], run.row_word[1]
    people = list(run.people.values())
    train = sum(p.train or 0 for p in people) or int(run.summary.get("train") or 0)
    test = sum(p.test or 0 for p in people) or int(run.summary.get("test") or 0)
    source = ", ".join(line(str(run.source[k])) for k in ("title", "licence") if run.source.get(k))
    whose = f"{text.plural(train + test, run.row_word)} of {text.plural(run.size, run.client_word)}; {source}"
    kept = f"{rows}' records" if run.row_word[0] in PEOPLE else rows
    split = f"{text.count(train)} used to train, {text.count(test)} to test"
    simulated = run.runtime in ("sequential", "vectorised")
    place = f"on one machine, which simulated {text.plural(run.size, run.client_word)}"
    place = place if simulated else f"at each {one}, the whole time"
    bare = "the secure sum (see above); trust in every reader of the model" if run.secure else \
        "trust in the coordinator and in every reader of the model"  # fmt: skip
    unit = promise.unit(run) if promise.complete(run) else run.row_word[0]
    if run.vertical:
        common, who = text.plural(parties.shared(run), run.row_word), text.plural(run.size, run.client_word)
        whose = f"{common} that {who} have in common; {source}"
        train, test = (int(text.finite((run.aligned or {}).get(k)) or 0) for k in ("train", "test"))
        split = f"{text.count(train)} used to train, {text.count(test)} to test"
        bare = "; ".join(row[3] for _, row in parties.threats(run))
    told = {
        "Whose data": whose,
        f"Where the {kept} were": f"{place}; {split}",
        f"What left a {one}": _left(run),
        f"What the {'others' if run.vertical else 'coordinator'} could see": _saw(run),
        f"Protection of one {unit}": _promise(run),
        "Against whom": _against(run),
        "How it is counted": _counted(run),
        "What it relies on": _listed(run, "assumes", bare),
        "What it does not cover": _listed(run, "uncovered", "everything that left, see above"),
        "Was it tested": "no privacy audit was run",
        "Who agreed": f"a simulation on one machine: no {one} was asked" if simulated else "see each site's own log",
        "Ever spent on these records": f"kept by each {one}; not in this card"
        if promise.complete(run)
        else "nothing was counted",
        "Can a person be removed": _removed(run),
    }
    lines = ["## For a data-protection officer", "", "| question | answer |", "|---|---|"]
    lines += [f"| {q} | {a} |" for q, a in told.items()]
    lines += ["", "Records that stay in place are pseudonymous at best, not anonymous. This card makes no legal claim."]
    return "\n".join(lines)


def _left(run: Run) -> str:
    if run.vertical:
        return (
            f"ids, as points on a curve that nobody else can trace back; in each of {run.rounds_done} rounds "
            "embeddings of its columns, or from the label party their gradients. No column, no label"
        )
    count = run.model.get("parameters")
    numbers = f"{text.count(count)} numbers" if isinstance(count, int) else "the update"
    if run.tuned.rule == "rolora":
        numbers = f"of {numbers} one factor of each adapter, in turn"
    clipped = ", clipped" if promise.complete(run) else ""
    update = f"masked, readable only in a sum{_over(run)}" if run.secure else "in the clear"
    rounds = f"in each of {run.rounds_done} rounds"
    if promise.amplified(run):  # how often a client took part is not told
        rounds = "in each round that it took part in:"
    sums = f"; once, sums and counts of {run.statistics.get('columns')} columns" if run.statistics else ""
    metrics = text.listed(text.metric(m) for m in run.metric_names)
    alone = ", summed over all" if promise.kept(run) else ""
    return f"{rounds} {numbers}{clipped}, {update}{sums}; {metrics} on test {run.row_word[1]}{alone}"


def _over(run: Run) -> str:
    return f" of at least {text.plural(promise.least(run), run.client_word)}" if promise.least(run) else ""


def _saw(run: Run) -> str:
    one, rows = run.client_word[0], run.row_word[1]
    if run.vertical:
        steps = "; ".join(dict.fromkeys(row[2] for _, row in parties.threats(run)))
        label, other = ("; ".join(row[i] for _, row in parties.threats(run)) for i in range(2))
        return line(f"the label party: {label}. A feature party: {other}. A hub between them: {steps}")
    each = (
        f"each {one}'s {'clipped ' if promise.complete(run) else ''}update, which can give away much about its {rows}"
    )
    metrics = "metrics over all together" if promise.kept(run) else "metrics"
    rest = f"No record, no single update{f', no metrics of a single {one}' if promise.kept(run) else ''}"
    if run.secure:
        return f"those sums, who took part, sizes, {metrics}. {rest}"
    return f"{each}; sizes, who took part, {metrics}. No record"


def _promise(run: Run) -> str:
    found = promise.claims(run)
    if run.vertical:
        none = "Labels of common rows were told, and no noise covers them." if parties.taught(run) else \
            "No leak was measured."  # fmt: skip
        return f"**None.** {line(parties.leak_sentence(run)) or none}"
    if not found:
        sums = f"The hub saw {promise.sums(run)}, but nothing bounds what a sum gives away."
        return "**None.** " + (sums if run.secure else f"The hub saw each {run.client_word[0]}'s update.")
    p = cast("dict[str, Any]", run.privacy)
    said = [
        f"ε = {text.epsilon(c.epsilon)} at δ = {text.delta(p['delta'])}: {line(c.against)} {promise.odds(run, c)}"
        for c in found
    ]
    return "; ".join(said)


def _against(run: Run) -> str:
    found = promise.claims(run)
    hub = "" if not found else ". Not against the coordinator, which adds the noise"
    named = [f"{line(c.against)} (ε = {text.epsilon(c.epsilon)})" for c in found]
    if not found and run.secure:
        return "the coordinator, as to single updates; nobody, as to what sums and model give away"
    return ("; ".join(named) or "nobody") + hub


def _counted(run: Run) -> str:
    found = promise.claims(run)
    if not found:
        return "not: there is no guarantee to count"
    ways = "; ".join(f"{line(c.sampling)}: {line(c.accountant)}" for c in found)
    count = text.plural(len(run.releases), ("release", "releases"))
    return f"{count} in the run's ledger. {ways}. Noise: {promise.noise(run)}"


def _listed(run: Run, name: str, otherwise: str) -> str:
    """A list of the guarantee; `otherwise` where there is none."""
    if not promise.complete(run):
        return otherwise
    if name == "assumes":
        found: list[str] = list(dict.fromkeys(a for c in promise.claims(run) for a in c.assumes))
    else:
        found = [str(u) for u in cast("list[object]", (run.privacy or {})[name])]
    return line("; ".join(found)) or "nothing further"


def _removed(run: Run) -> str:
    said = "not from these weights; run again without the record (digest and seed are below"
    return said + (
        "; the noise is never seeded, so the new weights differ in it too)" if promise.complete(run) else ")"
    )
