"""Secure aggregation: a server learns the integer sum over those who took part, and nothing else.

`secure_sum` is the server's conversation, `HANDLERS` are the clients' halves, `encode` and `decode` the way between
numbers and integers. SecAgg+ (Bell et al. 2020) with hardening against a server that deviates.
"""

from manyloom.secure.client import HANDLERS, SECRET, Refused, forget, start, wait
from manyloom.secure.encoding import Decoded, Encoded, decode, encode, repeatable
from manyloom.secure.graph import Degree, degree
from manyloom.secure.params import Control, Params, Policy
from manyloom.secure.server import Setting, Summed, secure_sum
from manyloom.secure.stages import Site
from manyloom.secure.suite import FULL, IDEAL
from manyloom.secure.transcript import hash_model

__all__ = ["FULL", "HANDLERS", "IDEAL", "SECRET", "Control", "Decoded", "Degree", "Encoded", "Params", "Policy",
           "Refused", "Setting", "Site", "Summed", "decode", "degree", "encode", "forget", "hash_model",
           "repeatable", "secure_sum", "start", "wait"]  # fmt: skip
