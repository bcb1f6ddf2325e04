"""Slots: named tensors, all that ever crosses a site's door, and their bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

import torch
from safetensors.torch import load, save
from torch import Tensor

Slots = dict[str, Tensor]


def size_bytes(slots: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors as serialised (their elements; names and headers are not counted).

    >>> size_bytes({"u": torch.zeros(3), "weight": torch.zeros((), dtype=torch.float64)})
    20
    """
    return sum(t.numel() * t.element_size() for t in slots.values())


def to_bytes(slots: Mapping[str, Tensor]) -> bytes:
    """Slots as safetensors: no code, no pickle."""
    return save({k: v.detach().contiguous() for k, v in slots.items()})


def from_bytes(data: bytes) -> Slots:
    """The slots of `to_bytes`; a ValueError names bytes that are no safetensors."""
    try:
        return load(data)
    except Exception as error:  # safetensors raises its own type and others, by the kind of damage
        raise ValueError(f"these are no named tensors: {error}") from error


def pack_json(value: object) -> Tensor:
    """A JSON value as a uint8 tensor, for the few texts that must travel (vocabularies)."""
    return torch.frombuffer(bytearray(json.dumps(value, ensure_ascii=False).encode()), dtype=torch.uint8)


def unpack_json(tensor: Tensor) -> object:
    """The value of `pack_json`.

    >>> unpack_json(pack_json({"sex": ["f", "m"]}))
    {'sex': ['f', 'm']}
    """
    return cast(object, json.loads(tensor.to(torch.uint8).cpu().numpy().tobytes()))
