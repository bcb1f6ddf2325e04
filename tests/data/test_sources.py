"""Named sources: what they hold, say and refuse, with tiny files and (where they are) real ones."""

import gzip
import inspect
import io
import os
import tarfile
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch

import manyloom.data as data
from manyloom.core.errors import BadInput
from manyloom.core.signature import keys, summary
from manyloom.data.partition import skew
from manyloom.data.sources import images, registry, shakespeare
from manyloom.data.sources.images import read_idx
from manyloom.data.sources.info import File
from manyloom.data.sources.shakespeare import VOCABULARY, encode

REAL = pytest.mark.skipif(not os.environ.get("MANYLOOM_DATA"), reason="MANYLOOM_DATA names no data directory")
COMMON = {"partition", "test", "standardise", "seed"}


@pytest.mark.parametrize("name", list(registry.sources()))
def test_every_source_explains_each_of_its_keys(name):
    function = data.source(name)
    known = keys(function)
    assert COMMON - ({"partition"} if function.__module__.endswith("vertical") else set()) <= set(known)
    for key in known.values():
        assert key.meaning.endswith("."), f"{name}: {key.name} has no line in Args"
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values())
    assert summary(function)
    info = registry.sources()[name]
    assert info.name == name and known["standardise"].default == info.standardise
    assert ("data_dir" in known) == (info.folder is not None or name == "huggingface")


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(BadInput) as caught:
        data.source("mnits")
    assert caught.value.code == "unknown-name" and 'did you mean "mnist"' in (caught.value.mend or "")


def test_a_function_of_ones_own_is_a_source():
    assert data.source("manyloom.data.sources.sklearn:digits") is data.digits
    for place in ("no_such_module:f", "math:no_such_function", "math:pi"):
        with pytest.raises(BadInput):
            data.source(place)


def test_heart_disease_is_four_hospitals():
    fed = data.heart_disease()
    assert (fed.sizes + fed.tests).tolist() == [303, 294, 123, 200]
    sick = fed.label_counts() + fed.label_counts(part="test")
    assert sick[:, 1].tolist() == [139, 106, 115, 149]
    assert fed.tests.tolist() == [59, 58, 24, 39]
    assert fed.label_counts(part="test")[:, 0].tolist() == [32, 37, 1, 10]
    assert list(fed.keys) == ["cleveland", "hungary", "switzerland", "long-beach-va"]
    assert fed.client_word == ("hospital", "hospitals") and fed.labels == ("healthy", "disease")
    assert fed.schema is not None and [c.name for c in fed.schema.columns][:5] == [
        "age",
        "sex",
        "cp",
        "trestbps",
        "chol",
    ]
    gaps = dict(zip([c.name for c in fed.schema.columns], fed.gaps().T.tolist()))
    assert gaps["ca"][1] > 200 and gaps["age"] == [0, 0, 0, 0]
    switzerland = fed.client(2).table
    assert switzerland is not None and (switzerland.numbers[:, 4] == 0).all()  # cholesterol unknown, left as it is


def test_heart_disease_can_be_dealt_otherwise():
    fed = data.heart_disease(partition=data.natural(clients=2))
    assert len(fed) == 2 and int((fed.sizes + fed.tests).sum()) == 920 and fed.names[0] == "client-0"
    fed = data.heart_disease(partition=data.dirichlet(clients=10))
    assert len(fed) == 10 and np.array_equal(fed.ids, np.arange(10))


def test_the_shipped_files_are_the_originals():
    from importlib.resources import files

    folder = files("manyloom.data").joinpath("files", "heart_disease")
    text = folder.joinpath("ATTRIBUTION.md").read_text("utf-8")
    for name in ("cleveland", "hungarian", "switzerland", "va"):
        assert sha256(folder.joinpath(f"processed.{name}.data").read_bytes()).hexdigest() in text
    assert "CC BY 4.0" in text


def test_digits_and_breast_cancer_need_a_partition():
    with pytest.raises(BadInput) as caught:
        data.digits()
    assert caught.value.code == "missing-key" and "dirichlet" in (caught.value.mend or "")
    fed = data.digits(partition=data.iid(clients=10), test=0.0)
    x, y = fed.slab(range(10)).gather()
    assert x.shape == (1797, 64) and 0 <= x.min() and x.max() == 1 and fed.classes == 10 and len(y) == 1797
    cells = data.breast_cancer(partition=data.iid(clients=3))
    assert cells.labels == ("malignant", "benign") and cells.schema is not None and len(cells.schema.columns) == 30


def test_tables_hold_every_key_and_make_the_federation_again():
    fed = data.digits(partition=data.dirichlet(clients=7, alpha=0.2), seed=5, test=0.3)
    assert fed.tables == {
        "data": {"source": "digits", "test": 0.3, "standardise": False, "seed": 5},
        "partition": {"scheme": "dirichlet", "clients": 7, "alpha": 0.2, "min_samples": 1, "drop_empty": False},
    }
    own, dealt = dict(fed.tables["data"]), dict(fed.tables["partition"])
    spec = data.dirichlet(**{k: v for k, v in dealt.items() if k != "scheme"})
    again = data.source(str(own.pop("source")))(**own, partition=spec)
    assert torch.equal(again.slab([3]).gather()[0], fed.slab([3]).gather()[0])


def test_what_is_no_table_is_not_standardised():
    with pytest.raises(BadInput, match="can't be standardised"):
        data.digits(partition=data.iid(clients=2), standardise=True)


def test_own_needs_an_own_test_set():
    with pytest.raises(BadInput, match="no test set of its own"):
        data.heart_disease(test="own")
    with pytest.raises(BadInput, match="test must be"):
        data.heart_disease(test=1.0)


# ---- IDX


def idx(array):
    kinds = {"uint8": 8, "int32": 12}
    head = bytes([0, 0, kinds[array.dtype.name], array.ndim])
    head += b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def place(tmp_path, monkeypatch, info, name, arrays):
    """Tiny files under the names of a source, with their own checksums."""
    folder = tmp_path / info.folder
    folder.mkdir(parents=True)
    sums = []
    for file, array in arrays.items():
        content = gzip.compress(idx(array), mtime=0)
        (folder / file).write_bytes(content)
        sums.append(File(file, sha256(content).hexdigest(), sha256(idx(array)).hexdigest()))
    monkeypatch.setattr(images, name, replace(info, files=tuple(sums[:4]), writers=(sums[4:] or [None])[0]))
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (12, 28, 28)).astype(np.uint8), np.full((4, 28, 28), 255, np.uint8)
    writers = np.zeros((12, 8), np.int32)
    writers[:, 2] = [5] * 6 + [300] * 4 + [7] * 2
    names = [n for n, *_ in registry.MNIST.files] + [registry.MNIST.writers.name]
    y = np.arange(12).astype(np.uint8) % 3
    arrays = dict(zip(names, [train, y, test, np.array([0, 1, 2, 9], np.uint8), writers]))
    return place(tmp_path, monkeypatch, registry.MNIST, "MNIST", arrays)


def test_mnist_is_read_by_writer(tiny):
    fed = data.mnist(data_dir=str(tiny.parents[1]))
    assert list(fed.names) == ["writer-0005", "writer-0007", "writer-0300"] and fed.sizes.tolist() == [6, 2, 4]
    assert fed.test_mode == "own" and fed.tests.sum() == 0 and fed.own_test and fed.classes == 10
    slab = fed.slab([0])
    assert slab.x.dtype == torch.uint8 and slab.gather()[0].shape == (6, 1, 28, 28) and fed.features == (1, 28, 28)
    own = fed.central()
    assert own is not None and torch.equal(own.gather()[0], torch.ones(4, 1, 28, 28))
    both = data.mnist(data_dir=str(tiny.parents[1]), test=0.5)
    assert both.own_test and both.tests.tolist() == [3, 0, 1] and both.test_mode == 0.5
    assert both.pooled().own_test and both.only(0).central() is not None


def test_mnist_dealt_otherwise_needs_no_writers(tiny, monkeypatch):
    next(tiny.glob("qmnist*")).unlink()
    monkeypatch.setenv("MANYLOOM_DATA", str(tiny.parents[1]))
    assert len(data.mnist(partition=data.iid(clients=3))) == 3
    with pytest.raises(BadInput) as caught:
        data.mnist()
    assert caught.value.what == "mnist is not here: qmnist-train-labels-idx2-int.gz is missing"


def test_a_missing_file_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MANYLOOM_DATA", raising=False)
    with pytest.raises(BadInput) as caught:
        data.mnist(data_dir="/data")
    assert caught.value.what == "mnist is not here: train-images-idx3-ubyte.gz is missing"
    assert caught.value.got == "looked in /data/vision/mnist" and caught.value.where == "(--data-dir)"
    assert caught.value.rule == "four IDX files, first one sha256 71524e2cd1ad2968..."
    assert caught.value.mend == 'get them as docs/data.md says, or try: [data] source = "digits"'
    assert caught.value.code == "data-missing"
    with pytest.raises(BadInput, match="neither --data-dir nor MANYLOOM_DATA"):
        data.shakespeare()
    monkeypatch.setenv("MANYLOOM_DATA", str(tmp_path))
    with pytest.raises(BadInput, match="MANYLOOM_DATA"):
        data.fashion_mnist(partition=data.iid(clients=2))


def test_a_file_may_lie_there_unpacked_or_packed_otherwise(tiny):
    where = str(tiny.parents[1])
    expected = data.mnist(data_dir=where).slab([0, 1, 2]).gather()[0]
    file = tiny / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(gzip.compress(content, 1, mtime=1))
    assert torch.equal(data.mnist(data_dir=where).slab([0, 1, 2]).gather()[0], expected)
    file.unlink()
    file.with_suffix("").write_bytes(content)
    assert torch.equal(data.mnist(data_dir=where).slab([0, 1, 2]).gather()[0], expected)


def test_a_file_cut_in_half_is_not_the_one_expected(tiny):
    file = tiny / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadInput) as caught:
        data.mnist(data_dir=str(tiny.parents[1]))
    assert caught.value.code == "data-corrupt"
    text = str(caught.value)
    assert text.startswith("error: train-images-idx3-ubyte.gz is not the file that was expected\n  got    sha256 ")
    assert f"...  ({file.stat().st_size:,} bytes)".replace(",", " ") in text
    assert "mend   delete it and get it again; docs/data.md says where" in text


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"\0\0\x08", b"\0\0\x08\x01\0\0\0\x09abc", b"\x1f\x8b\x08", b"PK\3\4", b"\0\0\x63\x01\0\0\0\0"],
)
def test_what_is_no_idx_file_is_refused(content):
    with pytest.raises(BadInput) as caught:
        read_idx(content, "labels")
    assert caught.value.code == "data-corrupt"


def test_idx_numbers_are_big_endian():
    a = np.array([[1, -2], [3, 70000]], np.int32)
    assert np.array_equal(read_idx(idx(a), "x"), a) and np.array_equal(read_idx(gzip.compress(idx(a)), "x"), a)


# ---- Shakespeare

PLAY = """<html><A NAME=speech1><b>ROMEO</b></a>
<blockquote>
<A NAME=1.1.1>But soft, what light</A><br>
<A NAME=1.1.2>through yonder window <i>[Aside]</i> breaks?</A><br>
</blockquote>
<A NAME=speech2><b>JULIET</b></a>
<blockquote><A NAME=1.1.3>Ay me!</A><br></blockquote>
<A NAME=speech3><b>ROMEO</b></a>
<blockquote><A NAME=1.1.4>She speaks.</A><br></blockquote>"""


@pytest.fixture
def plays(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        content = PLAY.encode("latin1")
        member = tarfile.TarInfo("./verona/full.html")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    info = registry.SHAKESPEARE
    folder = tmp_path / str(info.folder)
    folder.mkdir(parents=True)
    (folder / info.files[0].name).write_bytes(packed.getvalue())
    file = File(info.files[0].name, sha256(packed.getvalue()).hexdigest())
    monkeypatch.setattr(shakespeare, "SHAKESPEARE", replace(info, files=(file,)))
    return str(tmp_path)


def test_roles_speak_in_windows(plays):
    fed = data.shakespeare(data_dir=plays, length=8, min_chars=20, test=0.4)
    assert list(fed.names) == ["verona:ROMEO"] and fed.classes == 78 and fed.features == (8,)
    text = "But soft, what light\nthrough yonder window  breaks?\nShe speaks."
    windows = (len(text) - 1) // 8
    assert (fed.sizes[0], fed.tests[0]) == (windows - int(0.4 * windows), int(0.4 * windows))
    x, y = fed.slab([0]).gather()
    later = fed.slab([0], "test").gather()[0]
    said = "".join(VOCABULARY[i] for i in torch.cat([x, later]).flatten().tolist())
    assert said == text[: windows * 8] and x.dtype == y.dtype == torch.int64
    assert torch.equal(x[0, 1:], y[0, :-1])  # y is x one character later; the last windows are those held out
    assert fed.label_counts().sum() == y.numel()


def test_a_window_needs_a_role_that_is_long_enough(plays):
    with pytest.raises(BadInput, match="no role"):
        data.shakespeare(data_dir=plays, length=80, min_chars=500)


def test_the_vocabulary_is_fixed():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 78
    assert encode(VOCABULARY).tolist() == list(range(78))
    assert encode("\u2014\t[").tolist() == [VOCABULARY.index(c) for c in "??["]


# ---- the real files


@REAL
def test_the_writers_of_mnist():
    fed = data.mnist()
    assert len(fed) == 539 and (fed.sizes.min(), np.median(fed.sizes), fed.sizes.max()) == (19, 116, 131)
    own = fed.central()
    assert own is not None and len(own.y) == 10_000 and fed.sizes.sum() == 60_000


@REAL
def test_fashion_mnist_by_label():
    fed = data.fashion_mnist(partition=data.dirichlet(clients=100, alpha=0.3))
    assert fed.sizes.sum() == 60_000 and 0.45 < skew(fed.label_counts()).distance.mean() < 0.65
    assert fed.labels[9] == "Ankle boot"


@REAL
def test_shakespeare_by_role():
    fed = data.shakespeare()
    assert len(fed) == 820 and fed.names[0] == "1henryiv:KING HENRY IV"
    assert (fed.sizes.min(), np.median(fed.sizes), round(fed.sizes.mean()), fed.sizes.max()) == (5, 24, 51, 614)
    assert fed.tests.min() >= 1
