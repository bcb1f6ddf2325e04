"""The parts of a vertical run side by side, and the joint prediction.

A party needs nothing but its own folder to answer. Here all folders lie in one place, and this process plays everybody:
opening, alignment of the new rows, embeddings. Only the label party gets the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor

from manyloom.core.errors import BadInput, Problem, bad
from manyloom.core.exchange import Exchange, Handler, play
from manyloom.core.tensors import from_numpy, ints
from manyloom.core.text import count, listed
from manyloom.core.validate import nearest
from manyloom.data.arrays import F64, I64
from manyloom.engine.engine import quiet
from manyloom.job import checkpoint
from manyloom.runtime.parties import Site, answering, memory_of
from manyloom.track.kept import FOLDER, Kept, load_part, part_of
from manyloom.track.kept import save_parts as save_parts
from manyloom.track.predictions import Predictions, tell
from manyloom.vertical import ids, opening, psi, split
from manyloom.vertical.party import Party

ANY = split.SplitLearning(optimiser="sgd")  # what a party answers in prediction needs no optimiser


# ---- loading


def load_parts(folder: Path, which: Literal["final", "best"] = "final") -> JointModel:
    """The parts of a vertical run, all of which lie here.

    Args:
        folder: of the run.
        which: the last parts, or those of the best round (its checkpoint must be there).

    Raises:
        BadInput: `model-missing`, `store-newer`, `model-damaged`.
    """
    places = sorted(p.parent for p in (folder / FOLDER).glob("*/model.json"))
    kept = [load_part(folder, p) for p in places]
    labels = [p for p in kept if p.info["role"] == "label"]
    if not labels:
        raise bad("model-missing", f"{folder.name} has no model yet", got=f"{FOLDER} is not in its folder",
                  rule="a run writes it at its end", mend=f"manyloom resume {folder.name}")  # fmt: skip
    by_name = {p.name: p for p in kept}
    if lacking := [n for n in labels[0].info["parties"] if n not in by_name]:
        raise bad("model-missing", f"the part of {listed(lacking)} is not here", got=f"{FOLDER}/{lacking[0]}",
                  rule="a joint prediction here needs the folders of all parties")  # fmt: skip
    made = JointModel(folder, labels[0], tuple(by_name[n] for n in labels[0].info["parties"]))
    return made if which == "final" else _best(made)


def _best(made: JointModel) -> JointModel:
    """The parts of the best round, from its checkpoint."""
    folder = made.folder / "checkpoints"
    newest = checkpoint.latest(folder)
    best = newest.record.get("best_round") if newest else None
    if newest is not None and best == newest.round:
        return made
    path = folder / f"{best:05d}" if isinstance(best, int) and best else None
    if path is None or not path.is_dir():
        raise bad("model-missing", f"{made.folder.name} has kept no checkpoint of its best round",
                  got=f"best round {best}" if best else "no round was judged", mend="--model final")  # fmt: skip
    state = checkpoint.load(path)
    thetas = [state.server["theta"], *(memory_of(state.clients, k)["theta"] for k in range(len(made.features)))]
    parts = [
        p._replace(tensors=part_of(p.model, p.info).layout.state_dict(theta))
        for p, theta in zip((made.label, *made.features), thetas, strict=True)
    ]
    return replace(made, label=parts[0], features=tuple(parts[1:]))


# ---- predicting


@dataclass(frozen=True, eq=False)
class JointModel:
    """The parts of all parties, side by side in this process; `predict` plays what they would say to each other."""

    folder: Path
    label: Kept
    features: tuple[Kept, ...]

    def __repr__(self) -> str:
        told = ", ".join(f"{p.name} {p.info['parameters']}" for p in (self.label, *self.features))
        return f"JointModel({self.label.info['run']}: parameters {told})"

    @property
    def info(self) -> Mapping[str, Any]:
        """The label party's record: it alone knows what is predicted."""
        return self.label.info

    @property
    def alone(self) -> bool:
        """Whether each party predicts by a model of its own."""
        return bool(self.label.info.get("alone"))

    @property
    def names(self) -> tuple[str, ...]:
        """All parties, the label party first."""
        return (self.label.name, *(p.name for p in self.features))

    @property
    def parameters(self) -> int:
        """Numbers of all parts together."""
        return sum(int(p.info["parameters"]) for p in (self.label, *self.features))

    def predict(self, rows: Mapping[str, Any]) -> Predictions:
        """Predictions for the label party's new rows.

        Args:
            rows: party -> a CSV or Parquet path, a pandas frame, a mapping of columns, a list of mappings. A feature
                party may be left out, and lack rows, if the run was trained with `[cut] on_missing = "impute"`.

        Raises:
            BadInput: `party-missing`, `unknown-name`, `rows-missing`; of a file `columns-missing`, `not-a-number`,
                `label-range`, `bad-id`.
        """
        self.check(rows)
        if self.alone:
            return self._alone(*rows.items())
        given = self.label.read(rows[self.label.name])
        mine, keys = self.label.party(given)
        others = [p.party(p.read(rows[p.name]))[0] if p.name in rows else p.nobody for p in self.features]
        if not mine.keys:
            raise bad("rows-missing", f"{self.label.name} has no row with an id",
                      got=f"{count(len(given))} rows in {_source(rows[self.label.name])}",
                      rule=f"ids are {listed(self.label.reader.ids)}")  # fmt: skip
        with quiet(1, True, "cpu"):
            out, missing = self._played(mine, others)
        y = self._labels(mine)
        said = tell(self.info, out, y)
        texts = {n: [column[i] for i in keys.rows.tolist()] for n, column in zip(given.reader.ids, given.ids)}
        return replace(said, columns=[c.name for c in given.reader.preprocess.schema.columns],
                       rows=[i + 1 for i in keys.rows.tolist()], ids=texts, missing=missing,
                       left_out=keys.left_out)  # fmt: skip

    def _alone(self, rows: tuple[str, Any]) -> Predictions:
        """What one party's own model says of its own rows: after distillation nobody else is needed."""
        name, source = rows
        kept = next(p for p in (self.label, *self.features) if p.name == name)
        given = kept.read(source)
        party, keys = kept.party(given)
        with quiet(1, True, "cpu"):
            out = part_of(kept.model, kept.info)(kept.theta, party.x)
        y = self._labels(party)
        texts = {n: [column[i] for i in keys.rows.tolist()] for n, column in zip(given.reader.ids, given.ids)}
        return replace(tell(self.info, out, y), columns=[c.name for c in given.reader.preprocess.schema.columns],
                       rows=[i + 1 for i in keys.rows.tolist()], ids=texts, left_out=keys.left_out)  # fmt: skip

    def _labels(self, party: Party) -> I64 | F64 | None:
        """Labels as predictions are compared with them."""
        if party.y is None:
            return None
        return cast("I64 | F64", (party.y.double() if self.info["target"] == "number" else party.y).numpy())

    def check(self, rows: Mapping[str, Any]) -> None:
        """Whether the parties given are those of the run."""
        wrong = [
            Problem("unknown-name", f'{self.info["run"]} has no party "{name}"', got=f"--party {name}=...",
                    rule="its parties are " + listed(self.names),
                    mend=f'did you mean "{near}"?' if (near := nearest(name, self.names)) else None)
            for name in rows if name not in self.names
        ]  # fmt: skip
        if self.alone:
            if len(rows) != 1 or wrong:
                raise bad("party-missing", "each party of this run has a model of its own",
                          got=listed(rows) or "nothing", rule="rows of one party: " + listed(self.names),
                          mend=f"--party {self.features[0].name}=FILE")  # fmt: skip
            return
        may = self.label.cut.on_missing == "impute"
        need = [self.label.name] if may else self.names
        if lacking := [n for n in need if n not in rows]:
            rule = "the label party, which gets the result" if may else f"each of {listed(self.names)}"
            got = "rows of " + listed(rows) if rows else "nothing"
            wrong.append(Problem("party-missing", f"no rows of {listed(lacking)}", got=got, rule=f"needed of {rule}",
                                 mend=" ".join(f"--party {n}=FILE" for n in lacking)))  # fmt: skip
        if wrong:
            raise BadInput(*wrong)

    def _played(self, mine: Party, others: Sequence[Party]) -> tuple[Tensor, dict[str, int]]:
        """Outputs [n, C] for the label party's rows, and how many of them each feature party lacks."""
        me, *nodes = (opening.node(p.name) for p in (mine, *others))
        pins = {n.name: n.public for n in (me, *nodes)}
        agreed = opening.digest("schema", self.info["id_types"]), opening.digest("parameters", self.info["job_digest"])

        def handlers(kept: Kept, node: opening.Node) -> dict[str, Handler]:
            answers = split.handlers(kept.model, ANY, kept.cut, seed=kept.info["seed"], test=0.0)
            return {**opening.handlers(node, pins, *agreed), **psi.handlers(kept.align), **answers}

        def asked() -> Exchange[tuple[Tensor, dict[str, int]]]:
            names = [p.name for p in others]
            opened = yield from opening.opened(
                len(others), me, pins, names=names, schema=agreed[0], parameters=agreed[1]
            )
            places: list[Tensor] = []
            for k in range(len(others)):
                found = yield from psi.align(mine.keys, k, xid=opened.xid, settings=self.label.align)
                assert found.rows is not None  # what trained together was aligned with reveal = "both"
                places.append(from_numpy(found.rows))
            missing = {n: len(mine.keys) - len(at) for n, at in zip(names, places) if len(at) < len(mine.keys)}
            if missing and self.label.cut.on_missing == "error":
                raise _lacking(mine, dict(zip(names, places)))
            spoken = yield from split.forward(
                self.label.model,
                self.label.cut,
                self.label.theta,
                mine.x,
                parties=names,
                classes=self.info["classes"],
                places=places,
            )
            if spoken.lost:
                raise bad("party-lost", f"{names[spoken.lost[0].client]} gave no embeddings", got=spoken.lost[0].text)
            return spoken.output, missing

        kept = zip(others, self.features, nodes, strict=True)
        sites = [Site(k, party, handlers(own, node), own.memory) for k, (party, own, node) in enumerate(kept)]
        return play(asked(), answering(sites))


def _source(rows: Any) -> str:
    return Path(rows).name if isinstance(rows, (str, Path)) else "the table"


def _lacking(mine: Party, places: Mapping[str, Tensor]) -> BadInput:
    """Which of the label party's rows others lack: told here, where the label party is."""
    wrong: list[Problem] = []
    for name, at in places.items():
        gone = sorted(set(range(len(mine.keys))) - set(ints(at)))
        if not gone:
            continue
        some = listed([_shown(mine.keys[i]) for i in gone] if len(gone) < 4 else
                      [*(_shown(mine.keys[i]) for i in gone[:3]), f"{count(len(gone) - 3)} more"])  # fmt: skip
        wrong.append(
            Problem(
                "rows-missing",
                f"{name} lacks {count(len(gone))} of the {count(len(mine.keys))} rows to predict",
                got=f"it has no id {some}",
                rule='[cut] on_missing = "error": all parties have every row',
                mend='leave these rows out, or train with [cut] on_missing = "impute"',
            )
        )
    return BadInput(*wrong)


def _shown(key: bytes) -> str:
    return " / ".join(part.decode(errors="replace") for part in ids.parts_of(key))
