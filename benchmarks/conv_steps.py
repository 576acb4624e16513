"""How far should a block go whose output is normalised? On a validation split of CIFAR-10 (peers.py's cifar-conv).

tpSGD divides a block's step by the squared norm of its input. A block with a batch normalisation answers the same
whatever the scale of its input, so there it goes a tenth of the mean of its samples' steps instead, and a fixed readout
has the gain 1. Here both are tried, with readouts that are fixed and readouts that learn, at five learning rates each,
with one seed; backpropagation stands in peers.py. Needs CIFAR-10 (FEDTP_DATA); some ten minutes on one core.

    python benchmarks/conv_steps.py
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from machine import publish
from peers import METHODS, TASKS, TUNING_SEED, Split, run

from fedtp.blocks import Block

VARIANTS = {
    "fixed readouts, divided step": ("tpSGD, label space", False),
    "fixed readouts, plain step": ("tpSGD, label space", True),
    "learnt readouts, divided step": ("tpSGD, label space, learnt readouts", False),
    "learnt readouts, plain step": ("tpSGD, label space, learnt readouts", True),
}


@contextmanager
def treating_normalized_blocks_as_others() -> Iterator[None]:
    """Let no block know that it is normalised."""
    kept = Block.normalized
    Block.normalized = property(lambda self: False)
    try:
        yield
    finally:
        Block.normalized = kept


def main() -> None:
    """Run every variant at every learning rate."""
    torch.set_num_threads(1)
    split, rows = Split(TASKS["cifar-conv"]), []
    for variant, (method, knows) in VARIANTS.items():
        accuracies = []
        for lr in METHODS[method][1]:
            if knows:
                done = run(split, method, lr, TUNING_SEED, "validation")
            else:
                with treating_normalized_blocks_as_others():
                    done = run(split, method, lr, TUNING_SEED, "validation")
            accuracies.append(done["accuracy"])
            print(variant, f"lr {lr:g}: {done['accuracy']} %", flush=True)
        rates = " / ".join(f"{lr:g}" for lr in METHODS[method][1])
        rows.append({"variant": variant, "lr": rates, "accuracy": " / ".join(map(str, accuracies))})
    publish("conv_steps", "Accuracy in % on 5,000 held-back images, 10,000 images, 4 epochs", rows)


if __name__ == "__main__":
    main()
