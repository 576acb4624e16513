import subprocess
import sys

import pytest

from fedtp.data import load, names
from fedtp.errors import DataError


def test_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match=r"no data set 'random_rbf': did you mean 'random-rbf'\? \(known: agrawal, "):
        load("random_rbf")


@pytest.mark.parametrize("name", ["digits", "shuttle", "sea"])
def test_path_where_no_files_are_read(name, tmp_path):
    with pytest.raises(DataError, match="leave out the path"):
        load(name, path=tmp_path)


def test_samples_of_what_is_not_drawn():
    with pytest.raises(DataError, match="leave out samples = 10"):
        load("digits", samples=10)


@pytest.mark.parametrize(("name", "variable"), [("mnist", "FEDTP_DATA"), ("elec2", "RIVER_DATA")])
def test_missing_files_say_what_where_and_how(name, variable, tmp_path, monkeypatch):
    monkeypatch.delenv(variable, raising=False)
    with pytest.raises(DataError, match=f"nowhere, as {variable} is not set.*get .*, and set {variable}"):
        load(name)
    monkeypatch.setenv(variable, str(tmp_path / "env"))
    with pytest.raises(DataError, match=str(tmp_path / "env")):
        load(name)
    with pytest.raises(DataError) as error:
        load(name, path=tmp_path / "option")
    assert str(tmp_path / "option") in str(error.value)
    assert str(tmp_path / "env") not in str(error.value)


def test_names_are_sorted_and_include_every_kind():
    assert names() == sorted(names())
    assert {"digits", "mnist", "shuttle", "elec2", "sea", "random-rbf"} <= set(names())


def test_importing_is_light():
    code = """
import sys
import fedtp.data
print(sys.modules.keys() & {"river", "sklearn", "scipy", "polars", "torch"})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
