"""What learning is worth on the demo, `digits-rotating`, and how tpSGD compares with backpropagation there.

Both methods are tuned alike: five learning rates, on a seed of their own (prequential accuracy), then run with three
other seeds. "Frozen" is the best tpSGD, with learning stopped after the first quarter of the run.

    python benchmarks/drifting_digits.py
"""

from __future__ import annotations

import statistics

import typer
from machine import publish

from simulations import Run, Scenario, simulate

TUNING_SEED = 100
LEARNING_RATES = {"tpsgd": (0.1, 0.3, 1.0, 3.0, 10.0), "backprop": (0.02, 0.05, 0.1, 0.2, 0.5)}
WINDOW = 3


def run(seed: int, *settings: str) -> Run:
    """Run the demo with a seed and settings."""
    return simulate(Scenario.load("digits-rotating", settings, seed))


def recovery_rounds(done: Run) -> float:
    """Count rounds from the drift until accuracy over 3 rounds is back at 95 % of that over the 5 rounds before it.

    Infinite if it does not come back.
    """
    drift = done.scenario.drift[0].at_seconds
    rounds = done.rounds.sort("round")
    before = rounds.filter(rounds["ended_seconds"] <= drift).tail(5)
    aim = 0.95 * before["correct"].sum() / before["samples"].sum()
    after = rounds.filter(rounds["started_seconds"] >= drift)
    correct, samples = after["correct"].to_list(), after["samples"].to_list()
    fallen = False
    for end in range(WINDOW, len(correct) + 1):
        accuracy = sum(correct[end - WINDOW : end]) / sum(samples[end - WINDOW : end])
        fallen = fallen or accuracy < aim
        if fallen and accuracy >= aim:
            return float(end)
    return float("inf") if fallen else 0.0


def main(seeds: int = 3) -> None:
    """Tune both methods, then compare them over `seeds` seeds."""
    best = {}
    for method, rates in LEARNING_RATES.items():
        scores = {
            lr: run(TUNING_SEED, f"learner.method={method}", f"learner.lr={lr}").summary["prequential_accuracy"]
            for lr in rates
        }
        best[method] = max(scores, key=scores.__getitem__)
        print(method, {lr: round(score, 4) for lr, score in scores.items()})
    variants = {
        "tpsgd": ["learner.method=tpsgd", f"learner.lr={best['tpsgd']}"],
        "tpsgd, frozen": ["learner.method=tpsgd", f"learner.lr={best['tpsgd']}", "learner.freeze_after_seconds=900"],
        "backprop": ["learner.method=backprop", f"learner.lr={best['backprop']}"],
    }
    rows = []
    for name, settings in variants.items():
        runs = [run(seed, *settings) for seed in range(1, seeds + 1)]
        accuracies = [done.summary["prequential_accuracy"] for done in runs]
        rows.append(
            {
                "learner": name,
                "lr": best[name.split(",")[0]],
                "seeds": seeds,
                "prequential_accuracy": round(statistics.mean(accuracies), 4),
                "lowest": round(min(accuracies), 4),
                "highest": round(max(accuracies), 4),
                "final_accuracy": round(statistics.mean(done.summary["final_accuracy"] for done in runs), 4),
                "recovery_rounds": max(recovery_rounds(done) for done in runs),
                "drifts_detected": sum(done.summary["drifts_detected"] for done in runs),
                "drifts_true": sum(done.summary["drifts_true"] for done in runs),
                "false_alarms": sum(done.summary["false_alarms"] for done in runs),
            }
        )
    publish("drifting_digits", "digits-rotating: mean over seeds (recovery: slowest seed, rounds)", rows)


if __name__ == "__main__":
    typer.run(main)
