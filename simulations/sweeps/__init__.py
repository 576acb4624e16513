"""Sweeps: a scenario with some of its settings varied, each variant run with several seeds."""
