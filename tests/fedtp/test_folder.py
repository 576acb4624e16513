from pathlib import Path

import pytest

from fedtp.errors import FedtpError
from fedtp.folder import Results

RUNS = Results("run", ("scenario.toml", "summary.json"))


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def write_run(folder: Path, text: str, force: bool = False) -> None:
    with RUNS.fresh_folder(folder, force) as fresh:
        for mark in RUNS.marks:
            (fresh / mark).write_text(text)


def write_half(folder: Path, error: BaseException, force: bool = False) -> None:
    with RUNS.fresh_folder(folder, force) as fresh:
        (fresh / "half").write_text("")
        raise error


RUN = [f"run/{mark}" for mark in RUNS.marks]


@pytest.mark.parametrize("name", ["run", "a/b/run"])
def test_written_as_a_whole(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    with RUNS.fresh_folder(target) as fresh:
        assert not target.exists()
        (fresh / "x").write_text("x")
    assert tree(target) == ["x"]
    assert not [path for path in tree(tmp_path) if path.endswith((".new", ".old"))]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", "new")
    assert tree(tmp_path) == ["run", *RUN]


def test_a_run_is_replaced_only_by_force(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "old")
    (tmp_path / "run" / "more").write_text("")
    with pytest.raises(FedtpError, match=r"holds a run already: .*--force"):
        write_run(tmp_path / "run", "new")
    write_run(tmp_path / "run", "new", force=True)
    assert (tmp_path / "run" / RUNS.marks[0]).read_text() == "new"
    assert tree(tmp_path) == ["run", *RUN]


def test_what_is_no_run_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    for force in (False, True):
        with pytest.raises(FedtpError, match="holds something that is not a run; choose another folder"):
            RUNS.check_target(tmp_path, force)
    assert tree(tmp_path) == ["precious"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_of_what_was_interrupted(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_half(tmp_path / "a" / "b" / "run", error())
    assert tree(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_the_earlier_run_survives_what_was_interrupted(tmp_path: Path, error: BaseException) -> None:
    write_run(tmp_path / "run", "old")
    expected = FedtpError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_half(tmp_path / "run", error, force=True)
    assert tree(tmp_path) == ["run", *RUN]
    assert (tmp_path / "run" / RUNS.marks[0]).read_text() == "old"


def test_the_earlier_run_survives_a_failing_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run", "old")
    rename = Path.rename

    def fail_for_new(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(FedtpError, match="Permission denied"):
        write_run(tmp_path / "run", "new", force=True)
    assert tree(tmp_path) == ["run", *RUN]
    assert (tmp_path / "run" / RUNS.marks[0]).read_text() == "old"


def test_a_link_is_followed(tmp_path: Path) -> None:
    write_run(tmp_path / "run", "old")
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    write_run(tmp_path / "latest", "new", force=True)
    assert (tmp_path / "run" / RUNS.marks[0]).read_text() == "new"
    assert (tmp_path / "latest").is_symlink()


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    def race() -> None:
        with RUNS.fresh_folder(tmp_path / "run") as fresh:
            (fresh / "x").write_text("")
            write_run(tmp_path / "run", "another's")

    with pytest.raises(FedtpError, match="cannot write results"):
        race()
    assert (tmp_path / "run" / RUNS.marks[0]).read_text() == "another's"


def test_check_leaves_no_trace(tmp_path: Path) -> None:
    assert RUNS.check_target(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert tree(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_unwritable(tmp_path: Path, force: bool) -> None:
    file = tmp_path / "file"
    file.write_text("")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    bad: list[str | Path] = [file, file / "below" / "run", loop / "run", tmp_path / ("x" * 300), "a\0b"]
    bad += [path for path in [Path("/proc/fedtp/run")] if path.parents[1].exists()]
    for target in bad:
        with pytest.raises(FedtpError, match="cannot write results to "):
            RUNS.check_target(target, force)
        with pytest.raises(FedtpError, match="cannot write results to "):
            write_run(Path(target), "", force)
    assert tree(tmp_path) == ["file", "loop"]


BEGUN = Results("run", RUNS.marks, "checkpoint")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("scenario.toml", "checkpoint"):
        (folder / name).write_text("begun")
    return folder


def test_what_is_begun_is_unfinished_until_the_last_mark_is_there(begun: Path) -> None:
    assert BEGUN.unfinished(begun)
    assert not RUNS.unfinished(begun)
    assert not BEGUN.unfinished(begun / "none")
    (begun / "summary.json").write_text("")
    assert not BEGUN.unfinished(begun)
    (begun / "summary.json").unlink()
    (begun / "scenario.toml").unlink()
    assert not BEGUN.unfinished(begun)


def test_it_is_completed_in_place(begun: Path) -> None:
    (begun / ".checkpoint.12ab34cd.new").write_text("left by a process that was killed")
    with BEGUN.completed(begun) as fresh:
        for name in (*RUNS.marks, "table"):
            (fresh / name).write_text("whole")
        assert BEGUN.unfinished(begun)
        assert (begun / "scenario.toml").read_text() == "begun"
    assert tree(begun) == sorted([*RUNS.marks, "table"])
    assert {path.read_text() for path in begun.iterdir()} == {"whole"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_it_stays_unfinished_if_completing_fails(begun: Path, error: BaseException) -> None:
    def fail() -> None:
        with BEGUN.completed(begun) as fresh:
            (fresh / "summary.json").write_text("whole")
            raise error

    with pytest.raises(FedtpError if isinstance(error, OSError) else KeyboardInterrupt):
        fail()
    assert tree(begun) == ["checkpoint", "scenario.toml"]


def test_unfinished_results_are_replaced_only_by_force(begun: Path) -> None:
    with pytest.raises(FedtpError, match=r"holds a run that is not finished: .*--resume .*/run, or .* with --force"):
        BEGUN.check_target(begun)
    BEGUN.check_target(begun, force=True)
    with pytest.raises(FedtpError, match="something that is not a run"):
        RUNS.check_target(begun, force=True)
