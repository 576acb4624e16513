"""The measures that the report shows, each with its definition in one line."""

from __future__ import annotations

MEASURES: tuple[tuple[str, str], ...] = (
    (
        "Accuracy",
        "Share of right predictions over all samples, each predicted before it was learnt. No prediction is an error.",
    ),
    ("Kappa", "Cohen's kappa: agreement with the labels beyond chance; 1 is perfect, 0 is chance."),
    (
        "Kappa_t",
        "The same against the predictor that repeats the newest label that is known: 1 is perfect, 0 is no better.",
    ),
    (
        "Recovery",
        "Samples after a true drift until the last 200 of them are right at 95% or more of the rate of the 2,000 "
        "samples before the drift; 200 at least. Mean over the drifts that were recovered from.",
    ),
    (
        "Area lost",
        "Errors after a true drift beyond those at the accuracy before it, until recovery, the next drift or the end. "
        "Mean over drifts.",
    ),
    (
        "Detection delay",
        "Samples from a true drift to its first detection; mean over the drifts that were detected within the window.",
    ),
    ("False alarms", "Detections that follow no true drift within the window."),
    (
        "Detection",
        "The detector that watches every model's errors from outside finds that they have become more frequent.",
    ),
    ("Found by the model", "A drift that a model reported itself, by its own detector."),
    ("Time", "Processor time for predicting and learning one sample, without what measuring takes."),
    ("State", "Size of the model in memory after the stream, as River counts it."),
    ("±", "Half the width of the 95% confidence interval of the mean over seeds, by Student's t."),
)
