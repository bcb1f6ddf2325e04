"""Privacy: the guarantee with all that gives it a meaning, epsilon over rounds, the secure sum, who sees what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyloom.core import text
from manyloom.track import drawing, epsilon, parties, promise
from manyloom.track.folder import table
from manyloom.track.promise import Claim
from manyloom.track.record import Run
from manyloom.track.sections.parts import ROWS, Data, Drawer, every
from manyloom.track.verdict import record_word

ID = "privacy"
EMPTY: Data = {"none": False, "kicker": "", "delta": "", "pills": [], "chart": None, "numbers": None, "facts": [],
               "claims": [], "lists": [], "note": "", "seen": []}  # fmt: skip


def title(run: Run) -> str:
    return "Privacy"


def section(run: Run, draw: Drawer) -> Data | None:
    if run.role == "sweep":
        return None
    if run.vertical:
        return EMPTY | _between(run)
    if run.role is not None or run.privacy is None:
        return EMPTY | (_sums(run, draw) if run.role is None and run.secure else _none(run, draw))
    if lacking := promise.lacking(run):
        said = [f"The run carries a privacy claim that lacks {text.listed(lacking, most=12)}. A claim that is not "
                "complete is not printed."]  # fmt: skip
        told = seen(run, draw.participation)
        return EMPTY | {"none": True, "heading": "No complete guarantee", "text": said, "seen": told}
    return EMPTY | _promised(run, run.privacy, draw)


def _none(run: Run, draw: Drawer) -> Data:
    one = run.client_word[0]
    if run.role == "central":
        said = ["All records lay in one place. This is a baseline to compare with; only a simulation can do that."]
        return {"none": True, "heading": "Everything was pooled", "text": said}
    if run.role == "local":
        said = [
            f"Each {one} trained alone and sent nothing but its metrics. Its own model is not bounded by a guarantee."
        ]
        return {"heading": "Nothing was shared", "text": said}
    said = [
        f"No {record_word(run)} left its {one}. But the hub saw each {one}’s update in the clear, and an update can "
        f"give away much of the {run.row_word[1]} it was made from; so can the finished model.",
        "This run has no [privacy] table: nothing bounds what can be learned about one of them.",
    ]
    return {"none": True, "heading": "No privacy guarantee", "text": said, "seen": seen(run, draw.participation)}


def _between(run: Run) -> Data:
    """Parties that send embeddings and gradients to each other: what that tells, and that nothing bounds it."""
    said = [
        f"No column and no label left its party as such. But {parties.label_party(run)} got embeddings of the others’ "
        "columns, and they got gradients that were made with the labels; both can give something away.",
        f"{parties.leak_sentence(run)} Nothing bounds what else could be learned: there is no ε.".strip(),
    ]
    if parties.taught(run):
        told = dict(parties.threats(run)).get("train", ("", "labels", "", ""))[1]
        said = [
            f"No column left its party. {parties.feature_parties(run)[0]} got {told}: soft labels tell the labels of "
            f"those rows in part, and handed-over labels are the labels. {parties.label_party(run)} got what students "
            "say of held-out rows.",
            "No noise covers any of it: there is no ε.",
        ]
    return {"none": parties.undefended(run), "heading": "No privacy guarantee", "text": said, "seen": _both(run)}


def _both(run: Run) -> list[tuple[str, str, str, str]]:
    """Who sees what between parties: party, sees, does not see, relies on."""
    steps = [row for _, row in parties.threats(run)]
    label, other, hub = ("; ".join(dict.fromkeys(row[i] for row in steps)) for i in range(3))
    rests = "; ".join(dict.fromkeys(row[3] for row in steps))
    names = text.listed(parties.feature_parties(run))
    return [
        (parties.label_party(run), label, "the others’ columns; ids that only they have", rests),
        (
            names,
            other,
            "others’ columns" if parties.taught(run) else "others’ columns, labels as such, predictions",
            rests,
        ),
        ("A hub between them", hub, "ids and everything that is sent", "bodies sealed from party to party"),
        (
            "Reader of this report",
            "sizes, metrics, the leak meter" if run.leaks else "sizes, metrics",
            "everything else",
            "–",
        ),
    ]


def _sums(run: Run, draw: Drawer) -> Data:
    """A secure sum without a guarantee: what the hub could see, and what that does not promise."""
    one, many = run.client_word
    fewest = f" over at least {text.plural(promise.least(run), run.client_word)}" if promise.least(run) else ""
    said = [
        f"No {record_word(run)} left its {one}, and no single {one}’s update was readable: each was masked before it "
        f"left, and the masks cancel only in the sum{fewest}. The hub learned that sum, and who was in it.",
        f"This run has no [privacy] table: the {many}’ updates are hidden in the sum, but how much the sums and the "
        f"finished model tell about one {run.row_word[0]} is not bounded. There is no ε.",
    ]
    return {
        "kicker": "Secure sum, no privacy guarantee",
        "heading": "The hub saw only sums",
        "text": said,
        "pills": [("good", "secure sum"), ("warn", "no ε")],
        "facts": [*promise.channel(run), *_cut(run)],
        "lists": [("What this does not promise", promise.limits(run))],
        "seen": seen(run, draw.participation),
    }


def _cut(run: Run) -> list[tuple[str, str]]:
    """How many updates a secure sum could not take as they were."""
    cut, odd = (sum(int(text.finite(r.guard.get(k)) or 0) for r in run.rounds) for k in ("cut", "not_finite"))
    if not any(r.guard for r in run.rounds):
        return []
    told = [f"{text.plural(cut, ('update', 'updates'))} had numbers cut" if cut else "no number was cut"]
    told += [f"{text.count(odd)} had no finite numbers and counted as lost"] if odd else []
    return [("Fidelity", "; ".join(told))]


# ---- the guarantee


def _promised(run: Run, p: Mapping[str, Any], draw: Drawer) -> Data:
    ordered = promise.for_readers(run, draw.participation)
    first, many = ordered[0], len(ordered) > 1
    hidden = draw.hides(run)
    before, chart = first.planned, _chart(run, p, draw)
    said = [f"{text_of(first.against)} {promise.odds(run, first)}. Smaller is safer."]
    if before and run.spent is None:
        said.insert(0, "Nothing has been released yet: this is what all planned rounds will cost.")
    if many and not hidden:
        said.append(
            "This report tells who took part when. For its readers the number without amplification holds; "
            f"ε = {text.epsilon(ordered[1].epsilon)} is for those who don’t have that list."
        )
    return {
        "kicker": f"Guarantee for {promise.protected(run)}",
        "heading": f"ε = {text.epsilon(first.epsilon)}",
        "delta": f"at δ = {text.delta(p['delta'])}{', planned' if before else ''}",
        "text": said,
        "pills": _pills(run, p),
        "chart": chart,
        "numbers": chart and chart["table"],
        "claims": [_row(run, c) for c in ordered] if many else [],
        "facts": _facts(run, p, first, many),
        "lists": [("This holds if", _assumed(ordered)),
                  ("Not covered by ε", list(map(str, p["uncovered"])) or ["nothing"])],
        "note": f"{promise.left_out(run)} The operator shows them with: manyloom report --participation"
                if hidden else "",
        "seen": seen(run, draw.participation),
    }  # fmt: skip


def text_of(against: str) -> str:
    """An adversary at the start of a sentence."""
    return against[:1].upper() + against[1:]


def _pills(run: Run, p: Mapping[str, Any]) -> list[tuple[str, str]]:
    budget, spent = text.finite(p.get("budget")), run.spent
    told: list[tuple[str, str]] = []
    if budget is None:
        told.append(("warn", "no budget was set"))
    elif spent is not None:
        inside = spent <= budget * (1 + 1e-9)
        told.append(("good" if inside else "bad", f"{'within' if inside else 'over'} the budget of {budget:g}"))
    return told + ([("good", "secure sum")] if run.secure else [])


def _row(run: Run, c: Claim) -> tuple[str, str, str, str]:
    value = text.epsilon(c.epsilon) + (" planned" if c.planned and run.spent is not None else "")
    return text_of(c.against), value, text.factor(c.epsilon), f"{c.sampling}; {c.accountant}"


def _assumed(ordered: list[Claim]) -> list[str]:
    """What all the claims rest on; what only one of them needs says so."""
    told = [(a, [c for c in ordered if a in c.assumes]) for a in dict.fromkeys(a for c in ordered for a in c.assumes)]
    return [a if len(by) == len(ordered) else f"{a} (for ε = {text.epsilon(by[0].epsilon)})" for a, by in told] or [
        "nothing further"
    ]


def _facts(run: Run, p: Mapping[str, Any], first: Claim, many: bool) -> list[tuple[str, str]]:
    n, of = len(run.releases), text.plural(run.rounds_planned or 0, ("planned round", "planned rounds"))
    told = [("Protected", promise.protected(run)), ("Neighbouring data", _neighbours(run, str(p["adjacency"])))]
    told.append(("Mechanism", str(p["mechanism"])))
    if said := promise.noise(run):
        told.append(("Noise", said))
    told.append(("Sampling", _sampling(run, str(p["sampling"]))))
    told += [("Accountant", str(p["accountant"]))] if not many else []
    told.append(("Releases", f"{text.count(n)} in the ledger; {of}"))
    if not many:
        told.append(("Against whom", first.against))
    hub = promise.sums(run) if run.secure else f"each {run.client_word[0]}’s clipped update"
    told.append(("Not against", f"the hub: it sees {hub}, adds the noise, and is trusted to do so"))
    shares = [v for r in run.rounds if (v := text.finite(r.guard.get("unclipped"))) is not None]
    if shares:
        share = text.percent(min(1.0, max(0.0, shares[-1])))
        told.append(("Within the clip", f"{share} of the updates of the last round, a noised number"))
    told += promise.channel(run)
    told.append(("Audit", "none was run"))
    return told


def _sampling(run: Run, said: str) -> str:
    """As executed: what the releases say, where they all say the same."""
    executed = list(dict.fromkeys(r.sampling for r in run.releases if r.sampling))
    return f"{'; '.join(executed[:3]) or said}, as {'executed' if executed else 'planned'}"


def _neighbours(run: Run, found: str) -> str:
    name = promise.unit(run)
    known = {
        "zero-out": f"the {name}’s contribution is replaced by nothing",
        "add-or-remove": f"the {name} is there or not",
        "replace-one": f"the {name}’s data are replaced by any others",
    }
    return f"{found}: {known[found]}" if found in known else found


def _chart(run: Run, p: Mapping[str, Any], draw: Drawer) -> Data | None:
    steps = list({r.round: r for r in run.releases if r.epsilon is not None}.values())
    if not steps:
        return None
    budget, of = text.finite(p.get("budget")), run.rounds_planned or steps[-1].round
    planned = text.finite(table(run.planned, "privacy").get("epsilon"))
    ahead = (of, planned) if planned is not None and steps[-1].round < of else None
    spent = text.epsilon(run.spent)
    heading = f"ε {spent} of {text.epsilon(budget)} spent" if budget is not None else f"ε {spent} spent"
    heading += f" after {steps[-1].round} of {of} rounds"
    rows = [{"r": 0, "v": 0.0, "tip": "before training; ε 0.00"}]
    rows += [
        {"r": s.round, "v": s.epsilon, "tip": f"after round {s.round}; ε {text.epsilon(s.epsilon)}"} for s in steps
    ]
    shares = {r.round: r.guard.get("unclipped") for r in run.rounds}
    adaptive = any(text.finite(v) is not None for v in shares.values())
    head = ["Round", "ε", "odds at most ×", "noise multiplier", "clip", *(["within the clip"] if adaptive else [])]
    cells = [
        [str(s.round), text.epsilon(s.epsilon), text.factor(s.epsilon or 0.0), promise.number(s.noise),
         promise.number(s.clip), *([text.percent(shares.get(s.round))] if adaptive else [])]
        for s in (steps[k] for k in drawing.thin(len(steps), ROWS))
    ]  # fmt: skip

    def picture() -> str:
        return drawing.draw(epsilon.spent(rows, budget=budget, planned=ahead, last=of), heading)

    return {
        "title": heading,
        "subtitle": "Dashed: what the rounds left would cost, as planned." if ahead else "",
        "svg": draw("epsilon", picture),
        "table": {"title": every(len(steps)), "head": head, "rows": cells},
    }


# ---- who sees what


def seen(run: Run, participation: bool = False) -> list[tuple[str, str, str, str]]:
    """Who sees what: party, sees, does not see, relies on."""
    one, many = run.client_word
    rows, told = run.row_word[1], run.last is not None and (run.last.clients or run.last.edges)
    private, sums = promise.complete(run), run.statistics is not None
    plain = not (run.secure or run.privacy)
    metrics = "metrics" if plain else f"each {one}’s metrics" if told else f"metrics over all {many} together"
    if run.secure:
        hub = promise.sums(run, integer=True) + (", column sums and counts among them" if sums else "")
        hub += f"; who took part, who was lost; sizes; {metrics}"
        blind = f"a single {one}’s update{'' if told else ' and metrics'}; records"
        trust = "secure sum" + ("; trusted to add the noise and to keep the exact sums to itself" if private else "")
    else:
        update = f"each {one}’s clipped update" if private else "each update"
        hub = f"{update}{', column sums and counts' if sums else ''}, sizes, who took part, {metrics}"
        blind = "records" if told or not private else f"records; the metrics of a single {one}"
        trust = "nobody: it has to be trusted" + (" with the updates and to add the noise" if private else "")
    parties = [("Hub", hub, blind, trust)]
    if run.size > 1:
        what = f"records{'' if not run.secure else ', sums'} and updates of other {many}"
        by = "the hub" if not run.secure else "the hub and the secure sum" if private else "the secure sum"
        parties.append((f"Another {one}", "the model after each round", what, f"{by}{'; ε' if private else ''}"))
    where, bound = "final weights, this report", "ε" if private else "nothing bounds what weights give away"
    if promise.amplified(run):
        where += f"{' with' if participation else ', but not'} who took part when"
        bound += ", the number without amplification" if participation else ""
    parties.append(("Reader of the model", where, "everything else", bound))
    parties.append((f"The {one} itself", f"its own {rows} and updates", "–", "its own care"))
    return parties
