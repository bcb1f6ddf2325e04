"""What happens to a message between the client's work and the sum."""

from manyloom.transforms.chain import chain

__all__ = ["chain"]
