"""The other side of a conversation with clients, played by hand: each handler is run on its client."""

import numpy as np

from manyloom.core.exchange import Reply, play
from manyloom.data import statistics


def answers(fed):
    def answer(ask):
        handler = statistics.HANDLERS[ask.verb]
        replies = []
        for i in ask.to.tolist():
            body, memory = handler.run(ask.body, {}, fed.client(i))
            assert set(body) == set(handler.reply) and memory == {}
            replies.append(Reply(np.array([i]), body))
        return replies

    return answer


def folded(fed):
    """As `answers`, but what may be summed on the way is."""
    plain = answers(fed)

    def answer(ask):
        import torch

        replies = plain(ask)
        if ask.fold is None:
            return replies
        names = replies[0].body.keys()
        body = {n: torch.cat([r.body[n] for r in replies]) for n in names}
        body = {n: t.sum(0, keepdim=True) if n in ask.fold.slots else t for n, t in body.items()}
        return [Reply(ask.to, body)]

    return answer


def learnt(fed, answer=answers):
    return play(statistics.of(fed), answer(fed))
