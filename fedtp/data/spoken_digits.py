"""The Free Spoken Digit Dataset as sequences of log-mel frames."""

from __future__ import annotations

import io
import re
import wave
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtp.data.dataset import DataSet
from fedtp.data.files import find_folder
from fedtp.errors import DataError

ARCHIVE = "free-spoken-digit-dataset.zip"
NAME = re.compile(r"(?:.*/)?recordings/(\d)_([a-z]+)_(\d+)\.wav")

RATE = 8000  # samples a second
WINDOW, HOP = 200, 80  # 25 ms, every 10 ms
SPECTRUM = 256  # points of the Fourier transform
BANDS = 40
STEPS = 100  # longer recordings, one in fifty, lose what comes after the first second
TEST_INDICES = 5  # by the data set's own rule the first recordings of each speaker and digit are for testing

Signal = NDArray[np.float32]


def load_spoken_digits(path: str | Path | None = None) -> DataSet:
    """Load 3,000 recordings of the digits 0 to 9 by six speakers, as sequences of frames of 40 mel bands.

    A frame is 25 ms long, and there is one every 10 ms: a Hann window, the power spectrum, 40 triangular bands evenly
    spaced on the mel scale from 20 Hz to 4 kHz, and the logarithm. Each band is scaled to mean 0 and spread 1 over the
    frames of the training recordings.

    Parameters
    ----------
    path
        The folder with ``free-spoken-digit-dataset.zip`` (members ``recordings/<digit>_<speaker>_<index>.wav``). None
        means the folder that the environment variable ``FEDTP_DATA`` names. In both cases its subfolder ``fsdd`` will
        do as well.

    Returns
    -------
    DataSet
        Sequences of 100 frames, ``[recordings, 100 * 40]``; those shorter, as most are, end in zeros, and `lengths`
        holds how many frames are theirs. `groups` holds the speakers. Its `test_rows` keep recordings 0 to 4 of each
        speaker and digit apart.

    Raises
    ------
    DataError
        If the archive is missing, damaged, or not what its name promises.

    References
    ----------
    Jakobovski et al., https://github.com/Jakobovski/free-spoken-digit-dataset. Davis, Mermelstein, "Comparison of
    parametric representations for monosyllabic word recognition", 1980, for mel bands.
    """
    folder = find_folder(
        "spoken-digits",
        [ARCHIVE],
        path=path,
        variable="FEDTP_DATA",
        subfolder="fsdd",
        hint="get the Free Spoken Digit Dataset as a zip archive",
    )
    found = _recordings(folder / ARCHIVE)
    found.sort(key=lambda recording: (recording[0] < TEST_INDICES, *recording[:3]))
    frames = [log_mel(signal)[:STEPS] for *_, signal in found]
    test_rows = sum(index < TEST_INDICES for index, *_ in found)
    learnt = np.concatenate(frames[: len(frames) - test_rows])
    mean, spread = learnt.mean(0), np.maximum(learnt.std(0), 1e-3)
    x = np.zeros((len(frames), STEPS, BANDS), np.float32)
    for row, sequence in zip(x, frames, strict=True):
        row[: len(sequence)] = (sequence - mean) / spread
    return DataSet(
        name="spoken-digits",
        x=x.reshape(len(x), -1),
        y=np.array([digit for _, _, digit, _ in found], np.int64),
        classes=tuple(str(digit) for digit in range(10)),
        shape=(STEPS, BANDS),
        feature_names=tuple(f"frame-{step}-band-{band}" for step in range(STEPS) for band in range(BANDS)),
        test_rows=test_rows,
        lengths=np.array([len(sequence) for sequence in frames], np.int64),
        groups=tuple(speaker for _, speaker, _, _ in found),
    )


def log_mel(signal: Signal) -> Signal:
    """Return the logarithm of a signal's mel bands, ``[frames, 40]``, at least one frame.

    Parameters
    ----------
    signal
        ``[samples]`` at 8 kHz, from -1 to 1.
    """
    signal = np.pad(signal, (0, max(0, WINDOW - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, WINDOW)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW), SPECTRUM)) ** 2
    return np.log(power @ _bands() + 1e-6).astype(np.float32)


@cache
def _bands() -> NDArray[np.float64]:
    """Return the triangular bands, ``[frequencies, 40]``."""
    edges = np.linspace(_mel(20.0), _mel(RATE / 2), BANDS + 2)
    at = _mel(np.fft.rfftfreq(SPECTRUM, 1 / RATE))[:, None]
    rising, falling = (at - edges[:-2]) / np.diff(edges)[0], (edges[2:] - at) / np.diff(edges)[0]
    bands: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0, None)
    return bands


def _mel(hertz: Any) -> Any:
    return 2595 * np.log10(1 + hertz / 700)


def _recordings(file: Path) -> list[tuple[int, str, int, Signal]]:
    """Return each recording's index, speaker, digit and signal."""
    found = []
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if match := NAME.fullmatch(name):
                    digit, speaker, index = match.groups()
                    found.append((int(index), speaker, int(digit), _signal(archive.read(name), f"{file}: {name}")))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DataError(f"{file} is damaged: {error}; get it anew") from None
    if not any(index < TEST_INDICES for index, *_ in found) or all(index < TEST_INDICES for index, *_ in found):
        raise DataError(f"{file} holds no recordings/<digit>_<speaker>_<index>.wav to learn from and to test on")
    return found


def _signal(data: bytes, what: str) -> Signal:
    try:
        with wave.open(io.BytesIO(data)) as sound:
            form = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
            samples = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise DataError(f"{what} is damaged: {error}; get it anew") from None
    if form != (RATE, 1, 2):
        raise DataError(f"{what} is {form[0]} Hz, {form[1]} channels, {8 * form[2]} bits, not 8000 Hz mono of 16 bits")
    return np.frombuffer(samples, "<i2").astype(np.float32) / np.float32(32768)
