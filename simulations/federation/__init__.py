"""A whole federation on one machine: real processes and a real server, on a scenario's streams in real time."""
