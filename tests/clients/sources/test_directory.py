from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.sources import directory, quarantine
from clients.sources.directory import DirectoryStream
from clients.sources.quarantine import BadRow, put
from fedtp.data.schema import Schema
from fedtp.errors import DataError

SCHEMA = Schema(features=("a", "b"), label="y", classes=("no", "yes"))


def stream(folder: Path, limit: int = 0) -> DirectoryStream:
    return DirectoryStream(folder, SCHEMA, limit)


def rows(one: DirectoryStream, now: float = 5.0) -> list[list[float]]:
    return one.take(now).x.tolist()


def resumed(one: DirectoryStream, folder: Path, limit: int = 0) -> DirectoryStream:
    """Return a stream in another process: all that it knows has been on disk."""
    other = stream(folder, limit)
    other.cursor, other.position = json.loads(json.dumps(one.cursor)), one.position
    return other


def test_lines_are_taken_once_as_files_grow(tmp_path: Path) -> None:
    one, path = stream(tmp_path), tmp_path / "1.csv"
    assert rows(one) == []
    path.write_text("b,y,a\r\n2,no,1\r\n")
    taken = one.take(7.0)
    assert (taken.x.tolist(), taken.y.tolist(), taken.seconds.tolist()) == ([[1, 2]], [0], [7.0])
    assert taken.label_seconds is None
    with path.open("a") as file:
        file.write('4,yes,"3"\n6,no')
    one = resumed(one, tmp_path)
    assert rows(one) == [[3, 4]]
    with path.open("a") as file:
        file.write(",5\n")
    assert rows(one) == [[5, 6]]
    (tmp_path / "2.jsonl").write_text('{"a": 7, "b": 8, "y": "yes"}\n\n{"a": 9, "b": 1}\n')
    taken = resumed(one, tmp_path).take(9.0)
    assert taken.x.tolist() == [[7, 8], [9, 1]]
    assert taken.label_seconds.tolist() == [9.0, np.inf]


def test_what_is_left_waits(tmp_path: Path) -> None:
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text("a,b,y\n" + "".join(f"{name[0]},{i},no\n" for i in range(3)))
    one, found = stream(tmp_path, 2), []
    while taken := rows(one):
        found.append(taken)
        one = resumed(one, tmp_path, 2)
    assert found == [[[1, 0], [1, 1]], [[1, 2], [2, 0]], [[2, 1], [2, 2]]]
    assert one.position == 6


def test_files_that_were_read_may_go(tmp_path: Path) -> None:
    one = stream(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.csv").write_text(f"a,b,y\n{number},0,no\n")
        assert rows(one) == [[number, 0]]
        if number:
            (tmp_path / f"{number - 1}.csv").unlink()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b,y\n1,x,no\n", '"b" is "x", which is not a finite number'),
        ("a,b,y\n1,2,maybe\n", '"y" is "maybe", which is none of the classes'),
        ("a,b,y\n1,2\n", "2 cells, and the first one names 3 columns"),
        ('a,b,y\n1,"2,no\n', "unexpected end of data"),
        ("a,c,y\n", "the first line lacks the columns b"),
        ("a,b,y\n\x81,2,no\n", ""),
    ],
)
def test_bad_rows_are_kept_and_others_are_learnt_from(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "1.csv"
    path.write_bytes(text.encode("latin-1") + (b"" if "c,y" in text else b"8,9,yes\n"))
    one = stream(tmp_path)
    assert rows(one) == ([] if "c,y" in text else [[8, 9]])
    (bad,) = one.bad
    assert said in bad.reason
    assert path.read_bytes()[bad.offset :].startswith(bad.row[:1].replace("\\", "\x81").encode("latin-1"))
    assert rows(one) == []
    assert not one.bad


def test_a_file_that_is_shorter_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "1.csv"
    path.write_text("a,b,y\n1,2,no\n3,4,no\n")
    one = stream(tmp_path)
    rows(one)
    path.write_text("b,a,y\n6,5,no\n")
    assert rows(one) == [[5, 6]]
    assert "another file" in one.bad[0].reason


def test_a_file_that_is_replaced_by_a_longer_one_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "1.csv"
    path.write_text("a,b,y\n1,2,no\n")
    one = stream(tmp_path)
    rows(one)
    (tmp_path / "new").write_text("a,b,y\n" + "3,4,no\n" * 5)
    (tmp_path / "new").replace(path)
    assert rows(resumed(one, tmp_path)) == [[3, 4]] * 5


def test_the_last_line_of_a_file_that_another_follows_has_its_end(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b,y\n1,2,no\n3,4,no")
    one = stream(tmp_path)
    assert rows(one) == [[1, 2]]
    (tmp_path / "2.csv").write_text("a,b,y\n5,6,no\n")
    assert rows(one) == [[3, 4], [5, 6]]


def test_a_line_that_is_far_too_long_is_one_bad_row(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(directory, "_LONGEST", 20)
    (tmp_path / "1.csv").write_text("a,b,y\n" + "9" * 55 + ",1,no\n1,2,no\n")
    one = stream(tmp_path)
    assert rows(one) == [[1, 2]]
    assert ["too long" in bad.reason for bad in one.bad] == [True]


def test_a_file_without_labels_is_said(tmp_path: Path, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(directory.log, "warning", lambda text, *given: said.append(text % given))
    (tmp_path / "1.csv").write_text("a,b\n1,2\n3,4\n")
    one = stream(tmp_path)
    assert len(rows(one)) == 2
    assert one.bad == []
    assert said == ["1.csv has no column 'y': nothing can be learnt from its rows"]
    with (tmp_path / "1.csv").open("a") as file:
        file.write("5,6\n")
    assert rows(resumed(one, tmp_path)) == [[5, 6]]
    assert len(said) == 1


def test_a_long_row_is_kept_whole(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b,y\n1,2," + 50_000 * "x" + "\n")
    one = stream(tmp_path)
    assert rows(one) == []
    assert len(one.bad[0].row) > 50_000


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="put the device's files there"):
        stream(tmp_path / "none").take(0.0)


def test_what_comes_too_late_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "2.csv").write_text("a,b,y\n1,2,no\n")
    one = stream(tmp_path)
    assert len(one.take(0.0)) == 1
    (tmp_path / "1.csv").write_text("a,b,y\n3,4,no\n")
    assert len(one.take(1.0)) == 0
    assert [(row.file, row.offset) for row in one.bad] == [("1.csv", 0)]
    assert "too late, since 2.csv is being read" in one.bad[0].reason
    one = resumed(one, tmp_path)
    assert len(one.take(2.0)) == 0
    assert one.bad == []
    (tmp_path / "3.csv").write_text("a,b,y\n5,6,no\n")
    (tmp_path / "2.csv").write_text("a,b,y\n1,2,no\n7,8,yes\n")  # in time: it is still being read
    assert len(one.take(3.0)) == 2
    assert one.bad == []
    assert len(one.take(3.5)) == 0
    assert one.bad == []
    end = (tmp_path / "2.csv").stat().st_size
    (tmp_path / "2.csv").write_text("a,b,y\n1,2,no\n7,8,yes\n9,9,no\n")
    one = resumed(one, tmp_path)
    assert len(one.take(4.0)) == 0
    assert [(row.file, row.offset) for row in one.bad] == [("2.csv", end)]


def test_bad_rows_are_taken_by_and_by(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(directory, "_MOST_BAD", 1000)
    (tmp_path / "1.csv").write_text("a,b,y\n" + 100 * "nothing\n" + "1,2,no\n")
    one, bad = stream(tmp_path), []
    for _ in range(100):
        taken = one.take(0.0)
        assert len(one.bad) < 10
        bad += one.bad
        if len(taken):
            break
    assert [row.row for row in bad] == 100 * ["nothing"]
    assert len(taken) == 1


lines = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.tuples(st.floats(), st.integers(), st.sampled_from(["no", "yes", "", "?"])).map(
            lambda row: ",".join(map(str, row)).encode()
        ),
        st.dictionaries(st.sampled_from("aby"), st.one_of(st.floats(), st.text(max_size=5), st.none())).map(
            lambda row: json.dumps(row).encode()
        ),
    ),
    max_size=12,
)


@settings(deadline=None)
@given(lines, st.sampled_from(["1.csv", "1.jsonl"]), st.integers(0, 3), st.booleans())
def test_whatever_a_file_holds(tmp_path_factory, given_lines, name: str, limit: int, header: bool) -> None:
    """Every line is learnt from, kept as bad, or empty: none twice, none lost, whenever the process is another."""
    folder = tmp_path_factory.mktemp("some")
    content = b"\n".join([*([b"a,b,y"] if header else []), *given_lines, b""])
    (folder / name).write_bytes(content)
    one, taken, bad = stream(folder, limit), 0, []
    for _ in range(40):
        found = one.take(1.0)
        taken += len(found)
        bad += one.bad
        assert np.isfinite(found.x).all()
        if not len(found) and not one.bad:
            break
        one = resumed(one, folder, limit)
    assert one.cursor["offset"] == len(content)
    offsets = [row.offset for row in bad]
    assert len(offsets) == len(set(offsets))
    filled = [line for line in content.split(b"\n") if line.strip(b"\r \t\x0b\x0c\x1c\x1d\x1e\x1f")]
    assert taken + len(bad) <= len(filled) + 1
    whole = stream(folder)
    assert len(whole.take(1.0)) == taken
    assert [row.offset for row in whole.bad] == offsets


def test_the_quarantine_does_not_grow_for_ever(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(quarantine, "_BYTES", 1000)
    for number in range(100):
        put(tmp_path / "q", [BadRow("1.csv", number, "why", "row")] * 3)
    files = sorted((tmp_path / "q").iterdir())
    assert len(files) == 6
    assert max(path.stat().st_size for path in files) < 2000
    latest = json.loads((tmp_path / "q" / "rows.jsonl").read_text().splitlines()[-1])
    assert (latest["offset"], latest["reason"], latest["row"]) == (99, "why", "row")
    with pytest.raises(DataError, match="cannot be put"):
        put(tmp_path / "q" / "rows.jsonl", [BadRow("", 0, "", "")])
