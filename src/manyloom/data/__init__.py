"""Data: populations of clients, how rows are dealt to them, where rows come from, what is done to them first.

Names are imported when used, so that listing the sources needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyloom.data.federation import Client as Client
    from manyloom.data.federation import Federation as Federation
    from manyloom.data.parties import Holding as Holding
    from manyloom.data.parties import Parties as Parties
    from manyloom.data.parties import Reader as Reader
    from manyloom.data.partition import Partition as Partition
    from manyloom.data.partition import dirichlet as dirichlet
    from manyloom.data.partition import iid as iid
    from manyloom.data.partition import natural as natural
    from manyloom.data.partition import quantity as quantity
    from manyloom.data.partition import shards as shards
    from manyloom.data.preprocess import Preprocess as Preprocess
    from manyloom.data.sources.files import csv as csv
    from manyloom.data.sources.files import parquet as parquet
    from manyloom.data.sources.heart_disease import heart_disease as heart_disease
    from manyloom.data.sources.huggingface import huggingface as huggingface
    from manyloom.data.sources.images import fashion_mnist as fashion_mnist
    from manyloom.data.sources.images import mnist as mnist
    from manyloom.data.sources.info import SourceInfo as SourceInfo
    from manyloom.data.sources.registry import source as source
    from manyloom.data.sources.registry import sources as sources
    from manyloom.data.sources.shakespeare import shakespeare as shakespeare
    from manyloom.data.sources.sklearn import breast_cancer as breast_cancer
    from manyloom.data.sources.sklearn import digits as digits
    from manyloom.data.sources.synthetic import synthetic as synthetic
    from manyloom.data.sources.texts import jsonl as jsonl
    from manyloom.data.sources.texts import text as text
    from manyloom.data.sources.vertical import breast_cancer_parties as breast_cancer_parties
    from manyloom.data.sources.vertical import csv_parties as csv_parties
    from manyloom.data.sources.vertical import default_credit as default_credit
    from manyloom.data.store import Slab as Slab
    from manyloom.data.table import Table as Table
    from manyloom.data.table import TableSchema as TableSchema

_PLACES = {
    "federation": ("Client", "Federation"),
    "parties": ("Holding", "Parties", "Reader"),
    "partition": ("Partition", "dirichlet", "iid", "natural", "quantity", "shards"),
    "preprocess": ("Preprocess",),
    "sources.files": ("csv", "parquet"),
    "sources.heart_disease": ("heart_disease",),
    "sources.huggingface": ("huggingface",),
    "sources.images": ("fashion_mnist", "mnist"),
    "sources.info": ("SourceInfo",),
    "sources.registry": ("source", "sources"),
    "sources.shakespeare": ("shakespeare",),
    "sources.sklearn": ("breast_cancer", "digits"),
    "sources.synthetic": ("synthetic",),
    "sources.texts": ("jsonl", "text"),
    "sources.vertical": ("breast_cancer_parties", "csv_parties", "default_credit"),
    "store": ("Slab",),
    "table": ("Table", "TableSchema"),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}
__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'manyloom.data' has no attribute {name!r}")
    return getattr(import_module(f"manyloom.data.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
