"""Other programs kept running: started again when they end, with logs that do not grow for ever."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import NoReturn

import psutil

log = logging.getLogger("fedtp.federation")

#: Seconds until a program is started again after it has ended: the first time, at most, and how long it must have
#: run for its earlier ends to be forgotten.
FIRST, MOST, STEADY = 1.0, 60.0, 60.0
_LOG_BYTES, _LOG_FILES = 2_000_000, 3
_LINES = 40
#: Seconds that those have to end which a program has left.
_FAREWELL = 5.0
_PR_SET_PDEATHSIG = 1
#: Holds the marks of the programs that a process belongs to: Flower's processes detach themselves from all else.
_MARKS = "FEDTP_PROGRAMS"


class Program:
    """A program that is started again whenever it ends, until it is stopped.

    Parameters
    ----------
    name
        What messages call it, and its log.
    command
        The program and its arguments.
    logs
        The folder of its log; several files of limited size.
    environment
        All its environment variables.
    folder
        Where it works.
    explain
        From the last lines that it printed to why it ended, in a sentence; None if they do not tell.

    Attributes
    ----------
    starts
        How often it has been started.
    why
        Why it ended last, in a sentence; empty while it has not.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        logs: Path,
        environment: Mapping[str, str],
        *,
        folder: Path,
        explain: Callable[[Sequence[str]], str | None] = lambda _: None,
    ) -> None:
        self.name = name
        self.starts = 0
        self.why = ""
        self._command = list(command)
        # The same for the next one that keeps this program running: it ends what a killed one has left.
        self._mark = f"{name} in {folder.resolve()}"
        self._environment = {**environment, _MARKS: "\n".join([*_marks(environment), self._mark])}
        self._folder = folder
        self._explain = explain
        self._path = logs / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._printed: deque[str] = deque(maxlen=_LINES)
        self._reader: threading.Thread | None = None
        self._due = 0.0
        self._began = 0.0
        self._delay = FIRST

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Its process id, if it runs."""
        return self._process.pid if self._process is not None and self.running else None

    def step(self) -> None:
        """Start it if it does not run and its time has come; say so if it has ended."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            self._ended(now)
        if self._process is None and now >= self._due:
            self._start(now)

    def stop(self, seconds: float = 15.0) -> None:
        """End it, and the programs that it started; kill what has not ended by itself after some seconds."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal(process, signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end within %.0f s and was killed", self.name, seconds)
            _signal(process, signal.SIGKILL)
        process.wait()
        left = self.family()
        for one in left:
            with suppress(psutil.Error):
                one.terminate()
        _, left = psutil.wait_procs(left, _FAREWELL)
        _kill(left)
        if self._reader is not None:
            self._reader.join(5)

    def family(self) -> list[psutil.Process]:
        """Return its process, if it runs, and all that it has started, however far off they are by now."""
        found = []
        for process in psutil.process_iter():
            # Others' processes are nobody's business, and some end meanwhile.
            with suppress(psutil.Error, OSError):
                if self._mark in _marks(process.environ()) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _start(self, now: float) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _kill(self.family())
        self._printed.clear()
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        self.starts += 1
        self._began = now
        log.info("%s runs, process %d", self.name, self._process.pid)

    def _ended(self, now: float) -> None:
        process = self._process
        assert process is not None
        _kill(self.family())
        if self._reader is not None:
            self._reader.join(5)
        self._process = None
        self._delay = FIRST if now - self._began > STEADY else min(2 * self._delay, MOST)
        self._due = now + self._delay
        code = process.returncode
        how = f"was ended by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        self.why = self._explain(list(self._printed)) or f"{self.name} {how}; {self._path} says more"
        log.warning("%s; %s is started again in %.0f s", self.why, self.name, self._delay)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Copy what a process prints into its log, until the disk is full and beyond."""
        handler = RotatingFileHandler(self._path, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES, encoding="utf-8")
        handler.handleError = lambda record: None  # type: ignore[method-assign]
        assert process.stdout is not None
        for line in process.stdout:
            text = line.decode("utf-8", "replace").rstrip()
            self._printed.append(text)
            handler.emit(logging.LogRecord(self.name, logging.INFO, "", 0, text, None, None))
        handler.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a program and all that it started: they are a process group of their own."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _marks(environment: Mapping[str, str]) -> list[str]:
    return [mark for mark in environment.get(_MARKS, "").split("\n") if mark]


def _kill(processes: Sequence[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.Error):
            one.kill()


def _end_with_parent() -> None:
    """Have Linux end the program with us, however we end."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def run_as_process(main: Callable[[], object]) -> NoReturn:
    """Run a program, and end this process when it has: threads that it has left are not waited for."""
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
