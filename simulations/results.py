"""The folder of a run."""

from fedtp.folder import Results

RUNS = Results("run", ("scenario.toml", "summary.json"))
