"""What differential privacy costs: a thousand devices learn `sea-sudden` with noise.

The bound on an update's norm is chosen for each amount of noise, from three, by prequential accuracy on a seed of its
own; then three other seeds are run. The first row is the fleet without bound and noise.

    python benchmarks/privacy.py
"""

from __future__ import annotations

import statistics

import typer
from machine import publish

from simulations import Run, Scenario, simulate

TUNING_SEED = 100
NOISES, CLIPS = (4.0, 8.0, 16.0), (0.3, 1.0, 3.0)
FLEET = ("devices=[{class='pi',count=1000}]", "arrival.rate=0.25")


def run(seed: int, noise: float, clip: float) -> Run:
    """Run the fleet with so much noise."""
    return simulate(Scenario.load("sea-sudden", [*FLEET, f"privacy.noise={noise}", f"privacy.clip={clip}"], seed))


def main(seeds: int = 3) -> None:
    """Choose a bound for each amount of noise, then run `seeds` seeds."""
    chosen = {0.0: 0.0}
    for noise in NOISES:
        scores = {clip: run(TUNING_SEED, noise, clip).summary["prequential_accuracy"] for clip in CLIPS}
        chosen[noise] = max(scores, key=scores.__getitem__)
        print(f"noise {noise}", {clip: round(score, 4) for clip, score in scores.items()})
    rows = []
    for noise, clip in chosen.items():
        summaries = [run(seed, noise, clip).summary for seed in range(1, seeds + 1)]
        epsilons = [summary["epsilon"] for summary in summaries]
        rows.append(
            {
                "noise": noise,
                "clip": clip,
                "epsilon": "-" if epsilons[0] is None else f"{max(epsilons):.2f}",
                "seeds": seeds,
                "prequential_accuracy": round(statistics.mean(one["prequential_accuracy"] for one in summaries), 4),
                "final_accuracy": round(statistics.mean(one["final_accuracy"] for one in summaries), 4),
                "lowest_final": round(min(one["final_accuracy"] for one in summaries), 4),
            }
        )
    publish("privacy", "sea-sudden, 1,000 devices, delta 1e-5: mean over seeds", rows)


if __name__ == "__main__":
    typer.run(main)
