"""What the server does with the aggregate: theta <- theta + something of ubar.

The names of `[server]`: sgd, momentum, adam, yogi, adagrad.
"""

from manyloom.server.adaptive import adagrad, adam, yogi
from manyloom.server.sgd import momentum, sgd

SERVERS = {"sgd": sgd, "momentum": momentum, "adam": adam, "yogi": yogi, "adagrad": adagrad}

__all__ = ["SERVERS", "adagrad", "adam", "momentum", "sgd", "yogi"]
