"""The model card: what the model is, how good, on whose data, protected how, made how; Markdown with YAML on top.

Hugging Face reads the front matter. What only a person knows comes from the job's [card]; what is missing there is
listed, never invented.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, cast

from manyloom._version import __version__
from manyloom.core import text
from manyloom.track import intervals, officer, parties, promise, verdict
from manyloom.track.folder import Folder, write_atomic
from manyloom.track.record import Judged, Run, read
from manyloom.track.sections import job as environment

ASKED = {"use": "intended use", "misuse": "what it is not for", "contact": "contact", "licence": "licence of the model"}
_HF = {
    "auc": "roc_auc",
    "accuracy": "accuracy",
    "f1": "f1",
    "rmse": "rmse",
    "mae": "mae",
    "r2": "r_squared",
    "loss": "loss",
}
_SPOKEN = {"logistic": "logistic regression", "linear": "linear model", "mlp": "multilayer perceptron",
           "cnn": "convolutional network", "lstm": "LSTM"}  # fmt: skip


def write(folder: Folder | str | Path, to: str | Path | None = None) -> Path:
    """Write the card of a run; where it lies: `card.md` in the folder, or `to`."""
    found = folder if isinstance(folder, Folder) else Folder(Path(folder))
    path = Path(to) if to is not None else found.path / "card.md"
    write_atomic(path, card(read(found)))
    return path


def missing(folder: Folder | Run) -> list[str]:
    """What only a person knows and the job's [card] does not say."""
    said = told(folder if isinstance(folder, Run) else read(folder))
    return [name for key, name in ASKED.items() if not said.get(key)]


def told(run: Run) -> dict[str, str]:
    """The job's [card]."""
    try:
        found = tomllib.loads(run.toml).get("card", {})
    except tomllib.TOMLDecodeError:
        found = {}
    return {k: str(v).strip() for k, v in cast("dict[str, Any]", found).items()}


def card(run: Run) -> str:
    """The card as text."""
    parts = [
        _front(run),
        f"# {officer.line(run.name)}",
        _about(run),
        _good(run),
        officer.privacy(run),
        officer.table(run),
        _made(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


# ---- front matter


def _front(run: Run) -> str:
    """YAML; every text is written as JSON has it, which YAML reads."""
    said, judged = told(run), run.last
    image = run.model.get("name") in ("cnn",)
    task = (
        "image-classification"
        if image
        else "text-generation"
        if run.model.get("name") == "lstm"
        else "tabular-classification"
    )
    task = "tabular-regression" if run.target == "number" else "text-generation" if run.language else task
    tags = ["federated-learning", *(["lora"] if run.language else []), *(["secure-aggregation"] if run.secure else []),
            *(["differential-privacy"] if promise.complete(run) else []), task]  # fmt: skip
    source = text.slug(str(run.source.get("name") or "own-data"))
    lines = ["---", f"library_name: {'peft' if run.language else 'manyloom'}"]
    lines += [f"pipeline_tag: {task}"] if run.language else []
    lines += [f"base_model: {_yaml(run.tuned.base)}"] if "/" in run.tuned.base else []
    lines += [f"tags: [{', '.join(tags)}]"]
    licence = said.get("licence")
    lines += ["license: other", f"license_name: {_yaml(text.slug(licence) if licence else 'not-stated')}"]
    lines += [f"datasets: [{_yaml(source)}]", f"metrics: [{', '.join(_hf(m) for m in _shown(run))}]"]
    if judged is not None and judged.metrics and run.final:
        rows = f", {verdict.rows_word(run)}" if judged.rows else ""
        name = f"{run.source.get('title') or source}, {text.plural(run.size, run.client_word)}{rows}"
        lines += ["model-index:", f"- name: {_yaml(run.name)}", "  results:", f"  - task: {{type: {task}}}"]
        lines += [f"    dataset: {{name: {_yaml(name)}, type: {_yaml(source)}}}", "    metrics:"]
        for m in _shown(run):
            found = intervals.judged_interval(judged, m)
            ends = f", name: {_yaml(f'{text.metric(m)} (95 %: {_ends(found)})')}" if found else ""
            value = run.final.get(m)
            if value is not None:
                lines.append(f"    - {{type: {_hf(m)}, value: {round(value, 4)}{ends}}}")
    lines += ["manyloom:", f"  version: {__version__}", f"  run: {_yaml(run.id)}"]
    lines += [
        f"  {k}: {_yaml(v)}" for k, v in (("job_digest", run.job_digest), ("model_digest", run.model_digest)) if v
    ]
    lines += [f"  clients: {run.size}", f"  rounds: {run.rounds_done}"]
    lines += officer.front(run)
    return "\n".join([*lines, "---"])


def _yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _hf(name: str) -> str:
    return _HF.get(name, text.slug(name))


def _shown(run: Run) -> list[str]:
    names = [m for m in text.ordered(run.final or {}, run.main) if m != "loss"]
    return names[:3] or list(run.final or {})[:1]


def _ends(found: tuple[float, float]) -> str:
    return f"{text.short(found[0])} to {text.short(found[1])}"


# ---- text


def _about(run: Run) -> str:
    said = told(run)
    name = str(run.model.get("name") or "model")
    count = run.model.get("parameters")
    size = f" ({text.plural(count, ('parameter', 'parameters'))})" if isinstance(count, int) else ""
    if run.vertical:
        return "\n\n".join([f"A split network{size}, learned on {officer.line(_origin(run))}. {_between(run)}",
                            *_stated(run, said)])  # fmt: skip
    kind = _SPOKEN.get(name, f"model `{name}`")
    if run.language:
        kind, size = f"adapter for the language model `{run.tuned.base}`", f" ({run.tuned.size(count)})"
    article = "An" if kind[0] in "aeiouAEIOUL" and kind != "linear model" and kind != "logistic regression" else "A"
    data = officer.line(_origin(run))
    who = verdict.number_word(run.size)
    word = run.client_word[0 if run.size == 1 else 1]
    did = "tuned" if run.language else "trained"
    learned = f"{who} {word} {did} it {'together ' if run.size > 1 else ''}with {text.algorithm(run.algorithm)}"
    stays = verdict.record_word(run).replace("’", "'")
    moved = f"; no {stays} left its {run.client_word[0]}" if run.size > 1 else ""
    if run.role is not None:
        learned, moved = (
            {"central": "It is a baseline, trained on pooled records"}.get(run.role, "It is a baseline"),
            "",
        )
    return "\n\n".join([f"{article} {kind}{size}, learned on {data}. {learned}{moved}.", *_stated(run, said)])


def _origin(run: Run) -> str:
    return str(run.source.get("title") or "own data")


def _between(run: Run) -> str:
    """Who trained what together where each party keeps its own part."""
    who = text.listed(map(officer.line, parties.everybody(run)))
    over = text.plural(parties.shared(run), run.row_word)
    label = officer.line(parties.label_party(run))
    if parties.taught(run):
        students = officer.line(text.listed(parties.feature_parties(run)))
        return (f"{label} taught {students} by one message of labels, of rows among {over} that all of them have. Each "
                "party has a model of its own and predicts alone.")  # fmt: skip
    return (
        f"{who[:1].upper()}{who[1:]} trained it together with {text.algorithm(run.algorithm)}, over {over} that all of "
        f"them have. Each party keeps its own part; {label} has the labels, and alone gets predictions."
    )


def _stated(run: Run, said: dict[str, str]) -> list[str]:
    """What only a person knows, from the job's [card]; and how the run ended, where it isn't done."""
    lines: list[str] = []
    use = said.get("use") or "*Not stated: `manyloom card` reports this as missing; fill in `[card] use` in the job.*"
    misuse = said.get("misuse") or "*not stated.*"
    lines.append(f"**Use.** {use} **Not for:** {misuse}")
    licence = said.get("licence") or "*not stated*"
    contact = said.get("contact") or "*not stated*"
    lines.append(f"**Licence of the model:** {licence}. **Contact:** {contact}.")
    if run.status != "done":
        lines.append(f"**The run is {run.status}**, after round {run.rounds_done} of {run.rounds_planned}.")
    return lines


def _good(run: Run) -> str:
    judged = run.last
    if judged is None or not run.final or not run.rounds:
        return "## How good it is\n\nIt has not been judged."
    names = _shown(run)[:2]
    pooled, local = run.beside.get("central"), run.beside.get("local")
    main = names[0]
    head = ["tested on", run.judged_word[1], text.metric(main), "95 %", *map(text.metric, names[1:])]
    head += ([f"pooled {text.metric(main)}"] if pooled else []) + ([f"alone {text.metric(main)}"] if local else [])
    rows = [_good_row(run, judged, names, None), *(_good_row(run, judged, names, i) for i in _named(run, judged))]
    lines = [
        "## How good it is",
        "",
        "| " + " | ".join(head) + " |",
        "|" + "|".join(["---", *["--:"] * (len(head) - 1)]) + "|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    after = [kept] if (kept := promise.kept(run)) else list[str]()
    if verdict.diverged(run):
        after.append(verdict.verdict(run)[-1])
    if found := verdict.worst_client(run):
        after.append(
            f"It serves {officer.line(run.who(found[0]))} worst ({text.metric(found[1])} {text.number(found[2])})."
        )
    spread = judged.spread.get(main)
    if run.size > 8 and spread:
        over = f"Over {text.plural(len(judged.clients), run.client_word)}: mean {text.number(spread.mean)}"
        after.append(f"{over}, worst tenth {text.number(spread.worst)}; the rows above are the worst.")
    if local and local.on_all:
        after.append(f'"Alone" on all {run.row_word[1]} is the range of the {len(local.on_all)} models.')
    return "\n".join(lines) + ("\n\n" + " ".join(after) if after else "")


def _named(run: Run, judged: Judged) -> list[int]:
    """All clients up to eight; of more the five worst."""
    ids = sorted(judged.clients)
    if len(ids) <= 8:
        return ids if len(ids) > 1 else []
    known = [(v, i) for i in ids if (v := judged.clients[i].get(run.main)) is not None]
    return [i for _, i in sorted(known, reverse=run.main in text.LOWER_IS_BETTER)[:5]]


def _good_row(run: Run, judged: Judged, names: list[str], i: int | None) -> list[str]:
    pooled, local, main = run.beside.get("central"), run.beside.get("local"), names[0]
    mine = (run.final or {}) if i is None else judged.clients[i]
    n, positives = (judged.rows, judged.positives) if i is None else judged.counts.get(i, (None, None))
    value = text.number(mine.get(main))
    if main == "auc" and i is not None and intervals.says_little(n, positives):
        value += " (few of one class: says little)"
    found = (
        intervals.interval(main, mine.get(main), n, positives)
        if i is not None
        else intervals.judged_interval(judged, main)
    )
    row = ["**all**" if i is None else officer.line(run.who(i)), text.count(n) if n is not None else "–"]
    row += [f"**{value}**" if i is None else value, _ends(found) if found else "–"]
    row += [text.number(mine.get(m)) for m in names[1:]]
    if pooled:
        row.append(text.number((pooled.metrics if i is None else pooled.clients.get(i, {})).get(main)))
    if local:
        values = [v for m in local.on_all.values() if (v := m.get(main)) is not None]
        whole = f"{text.number(min(values))} to {text.number(max(values))}" if values else "–"
        row.append(whole if i is None else text.number(local.clients.get(i, {}).get(main)))
    return row


# ---- how


def _made(run: Run) -> str:
    env = run.env
    digest = f"digest {text.digest(run.job_digest)}" if run.job_digest else ""
    torch = f"torch {env['torch']}" if env.get("torch") else ""
    python = f"Python {env['python']}" if env.get("python") else ""
    lost = (
        f"{text.count(run.lost_total)} of {text.count(run.asked)} replies lost" if run.lost_total else "no reply lost"
    )
    told = ["`manyloom run job.toml`", digest, f"seed {run.seed}" if run.seed is not None else "",
            text.plural(run.rounds_done, ("round", "rounds"))]  # fmt: skip
    if promise.amplified(run):
        told.append(f"about {text.about(run.seconds)}")
    else:
        told += [text.seconds(run.seconds), f"{text.size(run.bytes_up + run.bytes_down)} moved", lost]
    where = [f"Manyloom {__version__}", python, torch, environment.cores(env), environment.git(env)]
    source = run.source.get("attribution")
    lines = [
        "## How it was made",
        "",
        " · ".join(t for t in told if t) + " · " + ", ".join(w for w in where if w) + ".",
    ]
    if run.paper:
        lines += ["", f"Algorithm: {text.algorithm(run.algorithm)}, {officer.line(run.paper)}."]
    lines += run.tuned.carded()
    if source:
        lines += ["", f"Data: {officer.line(str(source))}."]
    lines += ["", *(parties.use(run) if run.vertical else _use(run))]
    return "\n".join(lines)


def _use(run: Run) -> list[str]:
    if run.language:
        return run.tuned.use(run.id)
    return [
        f"On the command line: `manyloom predict {run.id} rows.csv`. In Python:",
        "",
        "```python",
        "import manyloom",
        f'model = manyloom.load("{run.id}")  # or a folder with model.safetensors and model.json',
        "model.predict(rows)  # raw rows: filling gaps and scaling are part of the model",
        "```",
    ]
