"""Parties that know different things of the same people: alignment, split networks, transfer, as conversations."""
