from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtp import supervision
from fedtp.supervision import Program

TWO = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    programs: list[Program] = []

    def make(code: str, **options: object) -> Program:
        command = [sys.executable, "-c", code]
        programs.append(Program("one", command, tmp_path / "logs", dict(os.environ), folder=tmp_path, **options))
        return programs[-1]

    yield make
    for one in programs:
        one.stop(1)


def until(condition: Callable[[], bool], program: Program | None = None, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        if program is not None:
            program.step()
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_what_ends_is_started_again_later_and_later(program, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(supervision, "FIRST", 0.05)
    one = program("print('hello'); raise SystemExit(3)")
    one._delay = 0.05
    until(lambda: one.starts == 3, one)
    assert "one ended with code 3" in one.why
    until(lambda: not one.running)
    assert (tmp_path / "logs" / "one.log").read_text().count("hello") >= 2
    assert one._delay >= 0.2


def test_a_signal_is_named_and_reasons_are_explained(program) -> None:
    one = program("import time; print('port taken', flush=True); time.sleep(60)", explain=lambda lines: None)
    one.step()
    until(lambda: bool(one._printed))
    assert one.pid
    os.kill(one.pid, signal.SIGKILL)
    until(lambda: bool(one.why), one)
    assert "signal 9 (SIGKILL)" in one.why
    two = program("print('port taken')", explain=lambda lines: "the port is taken" if "port taken" in lines else None)
    until(lambda: bool(two.why), two)
    assert two.why == "the port is taken"


def test_all_that_it_started_ends_with_it(program) -> None:
    one = program(TWO)
    one.step()
    until(lambda: bool(one._printed))
    child = int(one._printed[0])
    assert alive(child)
    one.stop()
    until(lambda: not alive(child))
    assert not one.running


def test_what_does_not_want_to_end_is_killed(program) -> None:
    one = program("import signal, time; signal.signal(15, lambda *_: None); print('on', flush=True); time.sleep(60)")
    one.step()
    until(lambda: bool(one._printed))
    pid = one.pid
    one.stop(0.3)
    assert pid
    assert not alive(pid)


def test_a_log_does_not_grow_for_ever(program, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(supervision, "_LOG_BYTES", 5_000)
    one = program("for i in range(3000): print('line', i)")
    one.step()
    until(lambda: one._process is None or one._process.poll() is not None)
    one._reader.join(5)
    sizes = [path.stat().st_size for path in (tmp_path / "logs").iterdir()]
    assert len(sizes) == 4
    assert max(sizes) <= 5_000
    assert "line 2999" in (tmp_path / "logs" / "one.log").read_text()


DETACHED = (
    "import subprocess, time; p = subprocess.Popen(['sleep', '60'], start_new_session=True); print(p.pid, flush=True); "
)


@pytest.mark.parametrize("way", ["stopped", "killed", "ended"])
def test_what_has_detached_itself_ends_with_it_too(program, way: str) -> None:
    one = program(DETACHED + ("" if way == "ended" else "time.sleep(60)"))
    one.step()
    until(lambda: bool(one._printed))
    child = int(one._printed[0])
    assert child in [process.pid for process in one.family()]
    if way == "killed":
        os.kill(one.pid, signal.SIGKILL)
    if way == "stopped":
        one.stop()
    else:
        until(lambda: bool(one.why), one, 4)  # though it holds what the program's log is read from
    until(lambda: not alive(child))


def test_programs_in_programs_end_with_them(program) -> None:
    """As a server does that has a SuperLink of its own, when it is killed and cannot end that itself."""
    inner = (
        "import os, sys, time; from pathlib import Path; from fedtp.supervision import Program; "
        "p = Program('two', ['sleep', '60'], Path('logs'), dict(os.environ), folder=Path('.')); p.step(); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    one = program(inner)
    one.step()
    until(lambda: bool(one._printed))
    os.kill(one.pid, signal.SIGKILL)
    until(lambda: bool(one.why), one)
    until(lambda: not alive(int(one._printed[0])))


def test_what_a_killed_supervisor_has_left_does_not_go_on_beside_the_new(program) -> None:
    before, after = program(DETACHED + "time.sleep(60)"), program("import time; time.sleep(60)")
    before.step()
    until(lambda: bool(before._printed))
    left = int(before._printed[0])
    after.step()
    until(lambda: not alive(left))
    assert after.running


@pytest.mark.parametrize(
    ("ending", "code"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("raise SystemExit('why')", 1), ("raise ValueError('broken')", 1)],
)
def test_a_process_ends_with_its_program_whatever_threads_are_left(ending: str, code: int) -> None:
    text = f"""
import threading, time
from fedtp.supervision import run_as_process
def main():
    threading.Thread(target=time.sleep, args=(60,)).start()
    {ending}
run_as_process(main)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == code
    assert ("ValueError: broken" in done.stderr) == ("broken" in ending)
