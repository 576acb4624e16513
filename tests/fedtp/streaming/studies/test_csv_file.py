from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedtp.errors import DataError
from fedtp.streaming.studies import Source, open_csv

HEADER = "sky,warmth,rain\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(text: str | bytes) -> Path:
        path = tmp_path / "weather.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def read(source: Source) -> list[tuple[dict[str, Any], Any]]:
    return list(source.samples(1))


def test_numbers_text_and_labels(write: Any) -> None:
    source = open_csv(write(HEADER + "clear,21.5,no\ngrey,-3,yes\n"), "rain")
    assert read(source) == [
        ({"sky=clear": 1.0, "sky=grey": 0.0, "warmth": 21.5}, "no"),
        ({"sky=clear": 0.0, "sky=grey": 1.0, "warmth": -3.0}, "yes"),
    ]
    assert (source.name, source.length, source.binary, source.drifts) == ("weather", 2, False, None)
    assert read(source) == read(source)


@pytest.mark.parametrize("missing", ["", " ", "NA", "nan", "?", "null", "None"])
def test_a_missing_value_leaves_its_feature_out(write: Any, missing: str) -> None:
    source = open_csv(write(f"{HEADER}{missing},1,no\ngrey,{missing},yes\n"), "rain")
    assert read(source) == [({"warmth": 1.0}, "no"), ({"sky=grey": 1.0}, "yes")]


def test_none_in_small_letters_is_a_value(write: Any) -> None:
    assert read(open_csv(write(HEADER + "none,1,none\ngrey,2,some\n"), "rain"))[0][1] == "none"


def test_whole_numbers_as_labels(write: Any) -> None:
    source = open_csv(write("a,y\n1,0\n2,1\n3,1.0\n"), "y")
    assert [label for _, label in read(source)] == [0, 1, 1]
    assert source.binary
    assert not open_csv(write("a,y\n1,1\n2,2\n"), "y").binary


def test_a_number_can_be_declared_a_name(write: Any) -> None:
    source = open_csv(write("zip,y\n8001,a\n8002,b\n"), "y", text=["zip"])
    assert read(source)[0] == ({"zip=8001": 1.0, "zip=8002": 0.0}, "a")


def test_columns_can_be_dropped(write: Any) -> None:
    assert read(open_csv(write(HEADER + "clear,1,no\nx,2,yes\n"), "rain", drop=["sky"]))[0] == ({"warmth": 1.0}, "no")


def test_quotes_blank_lines_and_a_byte_order_mark(write: Any) -> None:
    source = open_csv(write('\ufeffa,y\n\n"1,\n2",p\n   \n"say ""no""",q\n'), "y")
    assert read(source) == [({"a=1,\n2": 1.0, 'a=say "no"': 0.0}, "p"), ({"a=1,\n2": 0.0, 'a=say "no"': 1.0}, "q")]


def test_another_separator(write: Any) -> None:
    path = write("a;y\n1;p\n2;q\n")
    assert read(open_csv(path, "y", separator=";"))[0] == ({"a": 1.0}, "p")
    with pytest.raises(DataError, match=r"seem to be separated by ';': say so with --separator"):
        open_csv(path, "y")


def test_a_column_without_a_name(write: Any) -> None:
    assert read(open_csv(write(",y\n1,p\n2,q\n"), "y"))[0] == ({"column 1": 1.0}, "p")


MANY = "".join(f"v{number},{number % 2}\n" for number in range(1_001))


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "y", "is empty"),
        ("\n\n", "y", "is empty"),
        (HEADER, "rain", "has no rows"),
        (HEADER + "a,1,no\n", "Rain", r"has no column 'Rain' \(target\); it has: sky, warmth, rain"),
        (HEADER + "a,1,no\n\nb,2\n", "rain", "line 4: 2 fields, but the header names 3 columns"),
        (HEADER + "a,1,no\nb,2,yes,3\n", "rain", "line 3: 4 fields"),
        (HEADER + "a,1,no\nb,2,\n", "rain", "line 3: the target 'rain' is missing"),
        (HEADER + '"a\n b",1,no\nb,2,?\n', "rain", "line 4: the target 'rain' is missing"),
        (HEADER + 'a,1,no\n"b,2,yes\n', "rain", "line 3: unexpected end of data"),
        (HEADER + "a,1,no\nb,inf,yes\n", "rain", "line 3: column 'warmth' is infinite"),
        ("a,a,y\n1,2,p\n", "y", "two columns are called 'a'"),
        ("y\np\nq\n", "y", "no column to learn from beside the target 'y'"),
        ("a,y\n1,p\n2,p\n", "y", "same value in every row"),
        ("a,y\n" + "".join(f"1,{n}\n" for n in range(101)), "y", "'y' has 101 different values, which is a quantity"),
        ("a,y\n" + "".join(f"1,{n}.5\n" for n in range(21)), "y", "'y' has 21 different values, which is a quantity"),
        ("a,y\n" + "".join(f"1,{n}\n" for n in range(5000)), "y", "'y' has more than 1,000 different values"),
        ("a,y\n" + MANY, "y", "column 'a', taken as text, since line 2 has 'v0', has more than 1,000 different"),
        ("a,y\n" + "1,p\n" * 5 + MANY, "y", "since line 7 has 'v0'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write: Any, text: str, target: str, message: str) -> None:
    path = write(text)
    with pytest.raises(DataError, match=message) as caught:
        open_csv(path, target)
    assert str(caught.value).startswith(str(path))


def test_other_files(write: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        open_csv(tmp_path / "none.csv", "y")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        open_csv(tmp_path, "y")
    with pytest.raises(DataError, match=r"it is not UTF-8 text"):
        open_csv(write(b"a,y\n\xff\xfe,1\n"), "y")
    with pytest.raises(DataError, match=r"the separator ';;' cannot be used"):
        open_csv(write("a,y\n1,p\n"), "y", separator=";;")


def test_columns_that_do_not_exist(write: Any) -> None:
    path = write(HEADER + "a,1,no\nb,2,yes\n")
    with pytest.raises(DataError, match=r"no column 'x' \(drop\)"):
        open_csv(path, "rain", drop=["x"])
    with pytest.raises(DataError, match=r"no column 'x' \(text\)"):
        open_csv(path, "rain", text=["x"])
    with pytest.raises(DataError, match="target 'rain' cannot be dropped"):
        open_csv(path, "rain", drop=["rain"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(alphabet='ay,1"\n\r;? .e-_', max_size=60)))
def test_any_file_is_read_or_refused(write: Any, text: bytes | str) -> None:
    try:
        source = open_csv(write(text), "y")
    except DataError:
        return
    assert len(read(source)) == source.length
