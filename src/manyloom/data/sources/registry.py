"""Which sources there are. The facts are here, without torch; a source's code is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from manyloom.core.errors import bad
from manyloom.core.places import load
from manyloom.core.validate import nearest
from manyloom.data.sources.info import File, SourceInfo

if TYPE_CHECKING:
    from manyloom.data.federation import Federation
    from manyloom.data.parties import Parties

HEART_DISEASE = SourceInfo(
    "heart-disease",
    "UCI Heart Disease",
    "CC BY 4.0",
    "Janosi, Steinbrunn, Pfisterer, Detrano; UCI Machine Learning Repository, doi:10.24432/C52P4X",
    "Detrano et al. 1989, American Journal of Cardiology",
    natural="4 hospitals",
    samples=920,
    task="2 classes",
    where="ships with Manyloom",
    standardise=True,
)
DIGITS = SourceInfo(
    "digits",
    "Optical Recognition of Handwritten Digits",
    "CC BY 4.0",
    "Alpaydin, Kaynak; UCI Machine Learning Repository, doi:10.24432/C50P49",
    samples=1797,
    task="10 classes",
    where="scikit-learn",
)
BREAST_CANCER = SourceInfo(
    "breast-cancer",
    "Breast Cancer Wisconsin (Diagnostic)",
    "CC BY 4.0",
    "Wolberg, Mangasarian, Street, Street; UCI Machine Learning Repository, doi:10.24432/C5DW2B",
    samples=569,
    task="2 classes",
    where="scikit-learn",
    standardise=True,
    kinds=("horizontal", "vertical"),
)
SYNTHETIC = SourceInfo("synthetic", "Made when asked", task="10 classes", natural="any number", where="made")
MNIST = SourceInfo(
    "mnist",
    "MNIST by writer",
    "CC BY-SA 3.0; writer ids: BSD style (QMNIST)",
    "LeCun, Cortes, Burges; writer ids: Yadav, Bottou, QMNIST",
    "LeCun et al. 1998, Proceedings of the IEEE; Yadav and Bottou 2019, NeurIPS",
    natural="539 writers",
    samples=70_000,
    task="10 classes",
    where="needs --data-dir",
    own_test=True,
    folder="vision/mnist",
    files=(
        File(
            "train-images-idx3-ubyte.gz",
            "71524e2cd1ad2968737f7f2f2ff69cbfc32df8ccddff51593f7cb2d4e0eb5b64",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        File(
            "train-labels-idx1-ubyte.gz",
            "fe03b8bd7915f70bf5aa08be480aa413fbd85afcaa58b35d230d335f284fd88e",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        File(
            "t10k-images-idx3-ubyte.gz",
            "5634745efa576a17e7d4cf5cd9d09123c75e6538e5114267c2d156edaf519341",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        File(
            "t10k-labels-idx1-ubyte.gz",
            "ae18e77e031ccde52407f794d123116439864147d33ac992975f85dd4dc42af6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    writers=File("qmnist-train-labels-idx2-int.gz", "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f"),
)
FASHION_MNIST = SourceInfo(
    "fashion-mnist",
    "Fashion-MNIST",
    "MIT",
    "Zalando SE",
    "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747",
    samples=70_000,
    task="10 classes",
    where="needs --data-dir",
    own_test=True,
    folder="vision/fashion_mnist",
    files=(
        File(
            "train-images-idx3-ubyte.gz",
            "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        File(
            "train-labels-idx1-ubyte.gz",
            "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        File(
            "t10k-images-idx3-ubyte.gz",
            "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        File(
            "t10k-labels-idx1-ubyte.gz",
            "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
)
SHAKESPEARE = SourceInfo(
    "shakespeare",
    "The plays of Shakespeare, by role",
    "public domain",
    "The Complete Works of William Shakespeare, MIT",
    "Caldas et al. 2018, arXiv:1812.01097 (roles as clients)",
    natural="820 roles",
    task="next character",
    where="needs --data-dir",
    folder="mobile/shakespeare_by_role",
    files=(File("shakespeare_mit_html.tar.xz", "2be686d36c199d440bb96fa20597f68f8ea4d1dce7609d0f8d6a66de34add2e1"),),
)
CSV = SourceInfo(
    "csv",
    "Your own CSV files",
    natural="by key or file",
    task="by label",
    where="your files",
    standardise=True,
    kinds=("horizontal", "vertical"),
)
PARQUET = SourceInfo(
    "parquet",
    "Your own Parquet files",
    natural="by key or file",
    task="by label",
    where='extra "parquet"',
    standardise=True,
)
HUGGINGFACE = SourceInfo(
    "huggingface",
    "A set of the Hugging Face hub",
    natural="by key",
    task="by label",
    where='extra "huggingface"',
)
DEFAULT_CREDIT = SourceInfo(
    "default-credit",
    "Default of credit card clients, cut by columns",
    "CC BY 4.0; the cut: Apache-2.0 (FATE)",
    "Yeh, UCI Machine Learning Repository, doi:10.24432/C55S3H; the cut: FATE, WeBank",
    "Yeh and Lien 2009, Expert Systems with Applications",
    natural="2 parties",
    samples=30_000,
    task="2 classes",
    where="needs --data-dir",
    folder="finance/fate_vertical",
    files=(
        File(
            "default_credit_hetero_guest.csv.gz",
            "a28496120c2a1d444ee392cb6ad39bd24ecbf7eddd589f75ee2ba6a257864d5e",
            "4fd6be40766423cd4fd567f3ed4162f9ec512388a2eab2f265f46247c5ae90b0",
        ),
        File(
            "default_credit_hetero_host.csv.gz",
            "b15dd2391a193fb5fd58f65e18b4a632b2de6b299c5b4b9d8b2cfa68f8dc741c",
            "36880a1b1e6a5b85bcb1e7d8b58cb2b024b45422ec29881c8df562e17c4bc6b7",
        ),
    ),
    kinds=("vertical",),
)
JSONL = SourceInfo(
    "jsonl",
    "Your own conversations, JSON lines",
    natural="by key or file",
    task="next token",
    where="your files",
)
TEXT = SourceInfo(
    "text",
    "Your own plain texts",
    natural="by file",
    task="next token",
    where="your files",
)

INFOS: Mapping[str, SourceInfo] = MappingProxyType(
    {
        i.name: i
        for i in (
            HEART_DISEASE,
            DIGITS,
            BREAST_CANCER,
            SYNTHETIC,
            MNIST,
            FASHION_MNIST,
            SHAKESPEARE,
            CSV,
            PARQUET,
            HUGGINGFACE,
            JSONL,
            TEXT,
            DEFAULT_CREDIT,
        )
    }
)
_PLACES = {
    "heart-disease": "heart_disease:heart_disease",
    "digits": "sklearn:digits",
    "breast-cancer": "sklearn:breast_cancer",
    "synthetic": "synthetic:synthetic",
    "mnist": "images:mnist",
    "fashion-mnist": "images:fashion_mnist",
    "shakespeare": "shakespeare:shakespeare",
    "csv": "files:csv",
    "parquet": "files:parquet",
    "huggingface": "huggingface:huggingface",
    "jsonl": "texts:jsonl",
    "text": "texts:text",
}
_PARTIES = {
    "default-credit": "vertical:default_credit",
    "breast-cancer": "vertical:breast_cancer_parties",
    "csv": "vertical:csv_parties",
}


def sources(kind: str | None = None) -> Mapping[str, SourceInfo]:
    """The named sources, all or of one kind of job, and what they say of themselves; `source(name)` gives the code."""
    return INFOS if kind is None else {n: i for n, i in INFOS.items() if kind in i.kinds}


def source(name: str, kind: str | None = None) -> Callable[..., Federation]:
    """The function of a source: its name, or `module:function` (which returns a Federation)."""
    if found := _place(name, kind):
        module, function = found.split(":")
        return cast("Callable[..., Federation]", getattr(import_module(f"manyloom.data.sources.{module}"), function))
    if ":" in name:
        return cast("Callable[..., Federation]", load(name, "source", "[data]"))
    near = nearest(name, sources(kind))
    raise bad(
        "unknown-name",
        f'there is no data source "{name}"',
        got=f'source = "{name}" in [data]',
        mend=(f'did you mean "{near}"? ' if near else "") + "All names: manyloom data",
    )


def parties(name: str) -> Callable[..., Parties]:
    """The function of a source whose parties differ in columns; `module:function` returns `Parties`."""
    return cast("Callable[..., Parties]", source(name, "vertical"))


def _place(name: str, kind: str | None) -> str | None:
    """Where the function is; of a source of both kinds the horizontal one, unless the other is asked for."""
    places = {"horizontal": _PLACES, "vertical": _PARTIES, None: _PARTIES | _PLACES}
    return places[kind].get(name)
