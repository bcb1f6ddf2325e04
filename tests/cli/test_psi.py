"""`psi`: the common ids of two files, and who learned what."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Ran, masked, narrow, valid


def write(path: Path, head: Sequence[str], *rows: Sequence[object]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return path


def read(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write(
        tmp_path / "bank.csv", ["id", "born", "x"], [1, "a", 5], [2, "b", 6], ["", "c", 7], ["007", "d", 8], [3, "e", 9]
    )
    write(tmp_path / "shop.csv", ["kunde", "y"], [7, 1], [2, 0], [9, 1])
    return tmp_path


def test_two_files(here: Cli, files: Path) -> None:
    done = here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--out", "common.csv")
    assert (done.code, done.err) == (0, "")
    narrow(done.out)
    lines = done.out.splitlines()
    assert lines[:8] == [
        "left     bank.csv: 5 rows, 4 ids",
        "         1 row without an id left out",
        "right    shop.csv: 3 rows, 3 ids",
        "key      id = kunde (int)",
        "common   2 ids: 50 % of bank.csv, 67 % of shop.csv",
        "learned  bank.csv: the common ids, how many ids shop.csv has",
        "         shop.csv: the common ids, how many ids bank.csv has",
        "         a hub between them would see sizes and times",
    ]
    assert masked(lines[8]) == "bytes # kB from shop.csv, # kB from bank.csv, in # s"
    assert lines[9:] == [
        "wrote    common.csv   left_row, right_row, id",
        "note     both files were read on this machine; nothing was sent",
    ]
    head, *rows = read(files / "common.csv")
    assert head == ["left_row", "right_row", "id"]
    assert sorted(rows) == [["2", "2", "2"], ["4", "1", "007"]]  # rows count from 1, ids as LEFT writes them
    again = here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--out", "again.csv", "--quiet")
    assert again.out == "again.csv\n" and read(files / "again.csv") == read(files / "common.csv")  # one order


def test_json_and_what_label_reveals(here: Cli, files: Path) -> None:
    done = here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--json", "--reveal", "label", "--out", "c.csv")
    told = done.json
    valid(told)
    assert (told["common"], told["told"], told["reveal"], told["path"]) == (2, "2", "label", "c.csv")
    assert told["key"] == [{"left": "id", "right": "kunde", "type": "int"}]
    assert told["left"] == {"path": "bank.csv", "rows": 5, "ids": 4, "left_out": 1, "repeated": 0}
    assert told["columns"] == ["left_row", "id"] and len(read(files / "c.csv")) == 3
    human = here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--reveal", "label").out
    assert "         shop.csv: how many ids bank.csv has\n" in human
    both = here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--json").json
    assert both["sent_down"] > told["sent_down"] and both["path"] is None and both["columns"] == []


def test_several_columns_types_case_and_duplicates(here: Cli, tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["name", "born"], ["Ann", "01"], ["BOB", "2"], ["ann", "3"], ["Ann", "1"], ["", "4"])
    write(tmp_path / "b.csv", ["name", "born"], ["bob", "2"], ["ann", "1"], ["cy", "4"])

    def common(*flags: str) -> int:
        done = here("psi", "a.csv", "b.csv", "--key", "name,born", "--json", *flags)
        assert done.code == 0, done.err
        valid(done.json)
        return done.json["common"]

    assert common("--duplicates", "first") == 0
    assert common("--duplicates", "first", "--casefold") == 2
    assert common("--casefold", "--type", "text,text") == 2  # "01" and "1" are two texts
    told = here("psi", "a.csv", "b.csv", "--key", "name,born")
    assert (
        told.code == 2 and "a.csv: an id stands" in told.err and "add --duplicates first" in " ".join(told.err.split())
    )
    human = here("psi", "a.csv", "b.csv", "--key", "name,born", "--duplicates", "first").out
    assert "key      name (text), born (int)\n" in human and "1 row repeats an id, the first counts" in human
    assert "common   0 ids: 0 % of a.csv" in human


@pytest.mark.slow
def test_a_count(here: Cli, files: Path) -> None:
    write(files / "l.csv", ["id"], *[[i] for i in range(1000)])
    write(files / "r.csv", ["id"], *[[i] for i in range(900, 1900)])
    write(files / "few.csv", ["id"], *[[i] for i in range(991, 1991)])
    done = here("psi", "l.csv", "r.csv", "--key", "id", "--reveal", "count", "--json")
    valid(done.json)
    assert (done.json["common"], done.json["told"]) == (100, "100")
    human = here("psi", "l.csv", "few.csv", "--key", "id", "--reveal", "count").out
    assert "common   below 10 ids\n" in human and "l.csv: how many are common, how many ids few.csv has" in human
    assert here("psi", "l.csv", "few.csv", "--key", "id", "--reveal", "count", "--json").json["common"] is None


def test_a_count_is_told_of_many_ids_only(here: Cli, files: Path) -> None:
    write(files / "l.csv", ["id"], *[[i] for i in range(1000)])
    write(files / "r.csv", ["id"], *[[i] for i in range(999)])
    refused = here("psi", "l.csv", "r.csv", "--key", "id", "--reveal", "count")
    assert refused.code == 2 and "r.csv has too few ids" in refused.err
    refused = here("psi", "l.csv", "r.csv", "--key", "id", "--reveal", "count", "--out", "c.csv")
    assert refused.code == 2 and "nobody learns the common ids" in refused.err and not (files / "c.csv").exists()


def test_parquet(here: Cli, files: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    parquet.write_table(pa.table({"kunde": [7, None, 2, 3]}), files / "shop.parquet")
    assert here("psi", "bank.csv", "shop.parquet", "--key", "id=kunde", "--json").json["common"] == 3
    parquet.write_table(pa.table({"kunde": [2**53 + 1, 2]}), files / "large.parquet")
    refused = here("psi", "bank.csv", "large.parquet", "--key", "id=kunde")
    assert refused.code == 2 and "write this column as text" in refused.err
    parquet.write_table(pa.table({"kunde": [True, False]}), files / "flags.parquet")
    assert "holds true and false" in here("psi", "bank.csv", "flags.parquet", "--key", "id=kunde").err


def says(done: Ran, *words: str) -> None:
    assert (done.code, done.out) == (2, "")
    narrow(done.err)
    for word in words:
        assert word in done.err, done.err


def test_what_can_be_wrong(here: Cli, files: Path) -> None:
    says(here("psi", "bank.csv", "shop.csv"), "psi needs", "--help")
    says(
        here("psi", "bank.csv", "shop.csv", "--key", "idd=kunde"), 'bank.csv has no column "idd"', 'did you mean "id"?'
    )
    says(here("psi", "bank.csv", "shop.csv", "--key", "id"), 'shop.csv has no column "id"', "kunde and y")
    says(here("psi", "bank.csv", "shpo.csv", "--key", "id=kunde"), "did you mean shop.csv?")
    says(here("psi", "bank.csv", "shop.csv", "--key", "id=kunde,id=y"), "a column stands twice")
    says(here("psi", "bank.csv", "shop.csv", "--key", "id="), "a column has no name", "--key id=kunde,born")
    says(here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--type", "txt"), "did you mean text?")
    says(here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--type", "int,int"), "2 types for 1 id column")
    says(here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--reveal", "labl"), "did you mean label?")
    says(here("psi", "bank.csv", "shop.csv", "--key", "id=kunde", "--duplicates", "last"), "reject or first")
    says(
        here("psi", "bank.csv", "shop.csv", "--key", "born=kunde", "--type", "int"),
        'column "born"',
        "bank.csv",
        "row 1",
    )


def test_the_same_file_name_in_two_folders(here: Cli, tmp_path: Path) -> None:
    for folder in ("bank", "shop"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "ids.csv", ["id"], [1], [2])
    done = here("psi", "bank/ids.csv", "shop/ids.csv", "--key", "id")
    assert "common   2 ids: 100 % of bank/ids.csv, 100 % of shop/ids.csv" in done.out
