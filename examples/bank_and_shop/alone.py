"""What the label party would have without the others, for `[data] source`: its own columns of the rows all have.

The rows are those of the joint job, matched by their ids in the clear, and the same of them are held out, so that both
are judged alike. The files are at hand here; between organisations this is a job that the bank runs by itself.
"""

import numpy as np
import torch

from manyloom.data import Federation
from manyloom.data.parties import Parties
from manyloom.data.sources.vertical import breast_cancer_parties, default_credit
from manyloom.vertical.ids import canonical
from manyloom.vertical.passes import held_out
from manyloom.vertical.psi_wire import agreed_order


def aligned(parties: Parties) -> list[torch.Tensor]:
    """Each party's row numbers [m] of the rows that all have, in the agreed order; the label party's last."""
    found = [canonical(party.ids, parties.id_types) for party in parties.holdings]
    common = list(set(found[0].keys).intersection(*(keys.keys for keys in found[1:])))
    ordered = [common[i] for i in np.asarray(agreed_order(common)).tolist()]
    places = [dict(zip(keys.keys, keys.rows.tolist(), strict=True)) for keys in found]
    return [torch.tensor([place[key] for key in ordered]) for place in places]


def federation(parties: Parties, test: float, seed: int) -> Federation:
    """The label party as the one client; `seed` is the joint job's, which draws the held-out rows."""
    at = aligned(parties)[-1]
    x, y = parties.label.x[at], parties.label.y[at]
    kept, judged = held_out(len(at), test, seed)
    return Federation.of_tensors(x, y, [kept], own=(x[judged], y[judged]), names=[parties.label.name], test=0.0,
                                 classes=parties.classes, labels=parties.labels)  # fmt: skip


def credit(*, data_dir: str | None = None, seed: int = 0) -> Federation:
    """The bank's 13 columns of the 30 000 customers."""
    return federation(default_credit(data_dir=data_dir), 0.2, seed)


def cancer(*, seed: int = 0) -> Federation:
    """The clinic's 10 columns of the 569 patients."""
    return federation(breast_cancer_parties(), 0.2, seed)
