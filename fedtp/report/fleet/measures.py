"""The measures that the report shows, each with its definition in one line."""

from __future__ import annotations

from fedtp.report.fleet.drifts import BEFORE, RECOVERED

MEASURES: tuple[tuple[str, str], ...] = (
    (
        "Prequential accuracy",
        "Share of right predictions over all samples of all devices, each predicted by the model that its "
        "device then had, before learning from it.",
    ),
    (
        "Final accuracy",
        "Accuracy of the last global model on held-out data, under the concepts in force at the end.",
    ),
    (
        "Kappa",
        "Cohen's kappa of the prequential predictions: agreement with the labels beyond chance; "
        "1 is perfect, 0 is chance.",
    ),
    (
        "Kappa_t",
        "The same against the predictor that repeats the last label: 1 is perfect, 0 is no better.",
    ),
    (
        "Dropped, unlabelled",
        "Samples that a device's full buffer lost before they were learnt from; inputs whose label never comes. A "
        "sample whose label comes late is scored by what was predicted when its input was first seen.",
    ),
    ("True drift", "A device begins to see another concept; every device that drifts counts."),
    (
        "Drift detected",
        "A true drift followed by a detection on the same device within the stated window.",
    ),
    ("False alarm", "A detection that follows no true drift of its device within that window."),
    ("Delay", "Virtual time from a true drift that was detected to the first detection after it."),
    (
        "Recovery",
        f"Rounds after a drift until accuracy, pooled over all drifts, is back at {100 * RECOVERED:.0f}% of "
        f"what it was in the {BEFORE} rounds before.",
    ),
    ("Client round", "One device carrying out one order."),
    ("Virtual time", "The time that the simulated fleet lives through; wall time is what the computer took."),
    (
        "Traffic",
        "Bytes of the messages: down from the server to the devices, up from the devices to the server.",
    ),
    (
        "Energy",
        "Joules that the devices spend on computing and on the radio, by the constants of their classes.",
    ),
    (
        "Update of a block",
        "A report that the server used and that holds the block: a device trains the blocks that it can afford.",
    ),
    (
        "Peak memory",
        "The most that is alive at a time while a device trains its blocks, or else predicts, by the account in "
        "docs/costs.md.",
    ),
    (
        "Refused",
        "Updates that failed a check of the server: shape, finiteness, counts, projections and the like.",
    ),
    (
        "Late, lost, empty",
        "Orders whose reply came after the deadline; never came; found no sample to learn from.",
    ),
)
