"""What happens to a message between the client's work and the sum.

The keys of `[uplink]` and `[downlink]`: clip, top_k, random_k, error_feedback, qsgd, eden, uniform.
"""

from manyloom.transforms.chain import chain
from manyloom.transforms.clip import clip
from manyloom.transforms.eden import eden
from manyloom.transforms.feedback import error_feedback
from manyloom.transforms.links import downlink, uplink
from manyloom.transforms.quantise import qsgd, uniform
from manyloom.transforms.sparsify import random_k, top_k

__all__ = ["chain", "clip", "downlink", "eden", "error_feedback", "qsgd", "random_k", "top_k", "uniform", "uplink"]
