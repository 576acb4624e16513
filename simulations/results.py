"""The folder of a run."""

from fedtp.folder import Results

#: What is in a run's folder, instead of a summary, as long as the run is not finished.
CHECKPOINT = "checkpoint.safetensors"
RUNS = Results("run", ("scenario.toml", "summary.json"), CHECKPOINT)
