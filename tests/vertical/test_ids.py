"""Ids as keys: one form whatever they were stored as, and nothing dropped or merged silently."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyloom.core.errors import BadInput
from manyloom.vertical.ids import canonical, key_of, parts_of


def parts(values, kind, **how):
    return [parts_of(k)[0] for k in canonical([values], [kind], duplicates="first", **how).keys]


@pytest.mark.parametrize(
    "value, form",
    [(7, b"7"), (-7, b"-7"), (0, b"0"), (7.0, b"7"), (-0.0, b"0"), ("007", b"7"), ("+7", b"7"), ("-0", b"0"),
     ("-007", b"-7"), ("000", b"0"), (np.int32(7), b"7"), (np.uint64(2**64 - 1), b"18446744073709551615"),
     (np.float32(7), b"7"), (2.0**53 - 1, b"9007199254740991"), ("9" * 5000, b"9" * 5000), (10**30, b"1" + b"0" * 30)],
)  # fmt: skip
def test_whole_numbers_have_one_form(value, form):
    assert parts([value], "int") == [form]


@pytest.mark.parametrize(
    "value",
    [7.5, 2.0**53, float("inf"), True, np.bool_(True), "7.0", "7e3", " 7", "7 ", "0x7", "١", "seven", "--7", "+", b"7",
     np.datetime64("2020-01-01"), object()],
)  # fmt: skip
def test_what_is_no_whole_number_is_an_error_that_names_the_row(value):
    with pytest.raises(BadInput, match=r"in row 3") as error:
        canonical([[1, 2, value]], ["int"], names=["customer"])
    assert '"customer"' in str(error.value)


@pytest.mark.parametrize(
    "value, form",
    [("a", "a"), (" a b\t", "a b"), ("\u3000a\u00a0", "a"), ("\x1ca", "\x1ca"), ("ﬁ", "fi"), ("Ａ", "A"), (12, "12"),
     ("e\u0301", "é"), ("İ", "İ"), ("ẞ", "ẞ")],
)  # fmt: skip
def test_text_has_one_form(value, form):
    assert parts([value], "text") == [form.encode()]


@pytest.mark.parametrize("value, form", [("ẞ", "ss"), ("Straße", "strasse"), ("ABC", "abc"), ("Σς", "σσ"), ("ǅ", "dž")])
def test_text_may_differ_in_case(value, form):
    assert parts([value], "text", casefold=True) == [form.encode()]
    assert parts([value], "text") != [form.encode()]


@pytest.mark.parametrize("value", ["a\u0378", "\U0001fffe", "\ud800", 7.0, True, b"a"])
def test_text_that_parties_may_not_agree_on_is_an_error(value):
    with pytest.raises(BadInput, match="in row 1"):
        canonical([[value]], ["text"])


def test_bytes_are_taken_as_they_are():
    assert parts([b" \xff", bytearray(b"x"), "é", "e\u0301"], "bytes") == [b" \xff", b"x", "é".encode(), b"e\xcc\x81"]
    with pytest.raises(BadInput):
        canonical([[3]], ["bytes"])


@pytest.mark.parametrize("kind, missing", [("int", ""), ("text", ""), ("text", " \t"), ("bytes", b""), ("bytes", "")])
def test_rows_without_an_id_are_left_out_and_counted(kind, missing):
    found = canonical([["1", missing, None, float("nan"), np.float64("nan"), np.datetime64("NaT"), "2"]], [kind])
    assert found.rows.tolist() == [0, 6] and found.left_out == 5 and len(found.keys) == 2


def test_one_of_two_ids_missing_leaves_the_row_out():
    found = canonical([["a", "b", None], [1, None, 3]], ["text", "int"])
    assert found.rows.tolist() == [0] and found.left_out == 2


def test_columns_do_not_run_into_each_other():
    two = ["text", "text"]
    assert canonical([["ab"], ["c"]], two).keys != canonical([["a"], ["bc"]], two).keys
    assert canonical([["ab"], ["c"]], two).keys != canonical([["c"], ["ab"]], two).keys
    assert canonical([["abc"]], ["text"]).keys == [b"\x03\0\0\0abc"]  # also before a single one


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_keys_are_as_different_as_what_they_hold(a, b):
    assert (key_of(a) == key_of(b)) == (a == b)
    assert parts_of(key_of(a)) == a


@given(st.integers(-(2**53) + 1, 2**53 - 1), st.integers(0, 3))
def test_a_number_is_the_same_however_it_is_stored(n, zeros):
    text = ("-" if n < 0 else "") + "0" * zeros + str(abs(n))
    stored = [n, float(n), text, np.int64(n), np.float64(n)]
    assert len(canonical([stored], ["int"], duplicates="first").keys) == 1


assigned = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=6)


@given(assigned, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.booleans())
def test_text_is_the_same_in_every_normal_form(text, form, casefold):
    both = canonical([[text, unicodedata.normalize(form, text)]], ["text"], casefold=casefold, duplicates="first")
    assert len(both.keys) + both.left_out // 2 == 1


@given(assigned, st.booleans())
def test_a_canonical_text_stays_as_it_is(text, casefold):
    once = parts([text], "text", casefold=casefold)
    assert parts([p.decode() for p in once], "text", casefold=casefold) == once


def test_duplicates_are_refused_by_name_or_the_first_counts():
    values = ["é", "e\u0301", "a", "a ", "b", "b", "c", "c", "d", "d", "e", "e", "z"]
    with pytest.raises(BadInput) as error:
        canonical([values], ["text"], names=["who"])
    told = str(error.value)
    assert "6 in all" in told and "who = 'd'" in told and "who = 'e'\n" not in told and "row 2" in told
    kept = canonical([values], ["text"], duplicates="first")
    assert kept.rows.tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_duplicates_are_of_all_columns_together():
    assert len(canonical([["a", "a"], [1, 2]], ["text", "int"]).keys) == 2
    with pytest.raises(BadInput):
        canonical([["a", "a"], [1, "01"]], ["text", "int"])


def test_tables_that_make_no_sense_are_refused():
    for columns, types in [([], []), ([[1]], []), ([[1], [1, 2]], ["int", "int"])]:
        with pytest.raises(BadInput):
            canonical(columns, types)


def test_an_empty_table_has_no_keys():
    found = canonical([[]], ["int"])
    assert found.keys == [] and found.rows.tolist() == [] and found.rows.dtype == np.int64


def test_a_column_may_be_an_array():
    assert canonical([np.array([3, 1])], ["int"]).keys == canonical([["3", "1"]], ["int"]).keys
