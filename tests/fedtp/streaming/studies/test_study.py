from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from river import naive_bayes

from fedtp.errors import FedtpError, ModelError
from fedtp.streaming.studies import Progress, Study, StudyResult, open_source

MODELS = ["no-change", "bayes = river.naive_bayes.GaussianNB", "river.tree.HoeffdingAdaptiveTreeClassifier"]


def run(**more: Any) -> StudyResult:
    source = open_source("sea-abrupt").limited(samples=1_500, drift_at=[800])
    return Study(source, MODELS, **{"seeds": (1, 2), **more}).run()


@pytest.fixture(scope="module")
def result() -> StudyResult:
    return run()


def test_every_model_with_every_seed(result: StudyResult) -> None:
    runs = result.frames["runs"]
    names = ["no-change", "bayes", "HoeffdingAdaptiveTreeClassifier"]
    assert runs["model"].to_list() == names * 2
    assert runs["seed"].to_list() == [1] * 3 + [2] * 3
    assert runs["samples"].to_list() == [1_500] * 6
    assert list(result.summary["models"]) == names


def test_frames_agree_with_each_other(result: StudyResult) -> None:
    curves = result.frames["curves"].group_by("model", "seed", maintain_order=True).agg(pl.col("correct").sum())
    assert curves["correct"].to_list() == result.frames["runs"]["correct"].to_list()
    found = result.frames["events"].filter(pl.col("kind") == "detection").height
    assert found == result.frames["runs"]["detections"].sum()
    assert result.frames["drifts"]["drift"].to_list() == [800] * 6


def test_the_summary_is_the_mean_over_seeds(result: StudyResult) -> None:
    accuracies = result.frames["runs"].filter(pl.col("model") == "bayes")["accuracy"].to_list()
    figure = result.summary["models"]["bayes"]["accuracy"]
    assert figure["mean"] == pytest.approx(sum(accuracies) / 2)
    assert figure["margin"] == pytest.approx(12.7062 * abs(accuracies[0] - accuracies[1]) / 2, rel=1e-4)
    assert figure["runs"] == 2


def test_the_default_models() -> None:
    result = Study(open_source("phishing").limited(samples=400)).run()
    accuracy = {model: figures["accuracy"]["mean"] for model, figures in result.summary["models"].items()}
    assert list(accuracy) == ["tp", "no-change", "StandardScaler | LogisticRegression"]
    assert min(accuracy["tp"], accuracy["StandardScaler | LogisticRegression"]) > accuracy["no-change"] + 0.2


def test_seeds_draw_other_samples(result: StudyResult) -> None:
    one, two = result.frames["runs"].filter(pl.col("model") == "no-change")["correct"].to_list()
    assert one != two


def without(summary: dict[str, Any], *measures: str) -> dict[str, Any]:
    models = {
        model: {name: figure for name, figure in figures.items() if name not in measures}
        for model, figures in summary["models"].items()
    }
    return {**summary, "models": models}


def test_the_same_study_gives_the_same_bits(result: StudyResult) -> None:
    # In one and the same process CPython shares more and more between objects, and the last bytes of a state vary.
    again, vary = run(), ("cpu_us_per_sample", "state_bytes")
    assert without(again.summary, *vary) == without(result.summary, *vary)
    for name, frame in again.frames.items():
        assert frame.drop(vary, strict=False).equals(result.frames[name].drop(vary, strict=False))


def test_the_same_command_gives_the_same_bits(tmp_path: Path) -> None:
    found = []
    for number in ("1", "2"):
        command = [
            sys.executable,
            "-c",
            "import fedtp.cli; fedtp.cli.main()",
            "stream",
            "rbf-abrupt",
            "--samples",
            "300",
            "--out",
            number,
        ]
        command += [argument for model in MODELS for argument in ("--model", model)]
        environment = {**os.environ, "PYTHONHASHSEED": number}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        summary = json.loads((tmp_path / number / "summary.json").read_text())
        curves = (tmp_path / number / "curves.parquet").read_bytes()
        found.append((without(summary, "cpu_us_per_sample"), curves))
    assert found[0] == found[1]


def test_a_model_alone_does_as_among_others(result: StudyResult) -> None:
    source = open_source("sea-abrupt").limited(samples=1_500, drift_at=[800])
    alone = Study(source, {"bayes": naive_bayes.GaussianNB()}, seeds=(2,)).run()
    among = result.frames["runs"].filter((pl.col("model") == "bayes") & (pl.col("seed") == 2))
    assert alone.frames["runs"]["correct"].item() == among["correct"].item()


def test_without_known_drifts_nothing_is_said_of_them() -> None:
    result = Study(open_source("rbf-incremental").limited(samples=300), ["no-change"]).run()
    figures = result.summary["models"]["no-change"]
    assert result.summary["drifts"] is None
    for name in ("recovery_samples", "drifts_recovered", "area_lost", "detection_delay", "false_alarms"):
        assert figures[name] == {"mean": None, "margin": None, "runs": 0}
    assert figures["detections"]["mean"] is not None


def test_a_stream_known_not_to_drift_has_only_false_alarms() -> None:
    result = Study(open_source("sea").limited(samples=300), ["no-change"]).run()
    figures = result.summary["models"]["no-change"]
    assert figures["false_alarms"]["mean"] == figures["detections"]["mean"]
    assert figures["area_lost"]["mean"] is None


def test_what_models_report_is_in_the_events(recorder: Any, labels: Any) -> None:
    class Drifting(recorder):
        def learn_one(self, x: Any, y: Any) -> None:
            super().learn_one(x, "drift" if x["n"] == 2 else y)

    result = Study(labels("abcd"), {"ours": lambda seed: Drifting()}).run()
    assert result.frames["events"].to_dicts() == [
        {
            "model": "ours",
            "seed": 1,
            "kind": "reaction",
            "sample": 2,
            "rises": [{"block": "0", "rise": 0.25}, {"block": "head", "rise": 0.5}],
        }
    ]
    assert result.summary["models"]["ours"]["reactions"]["mean"] == 1


def test_seeds_reach_source_and_models(recorder: Any, labels: Any) -> None:
    source, seen = labels("ab"), []
    Study(source, {"one": lambda seed: seen.append(seed) or recorder()}, seeds=(3, 5)).run()
    assert source.draw.seeds == [3, 5]
    assert seen == [1, 3, 5]  # once to see whether it can be made at all


def test_a_classifier_of_two_classes_learns_many(labels: Any) -> None:
    model = "logistic = river.preprocessing.StandardScaler | river.linear_model.LogisticRegression"
    result = Study(labels("a" * 50 + "b" * 50 + "c" * 50), [model]).run()
    assert result.summary["models"]["logistic"]["accuracy"]["mean"] > 0.5


def test_progress(labels: Any) -> None:
    steps: list[Progress] = []
    Study(labels("a" * 100), {"x": "no-change", "y": "no-change"}, seeds=(1, 2)).run(on_progress=steps.append)
    assert [step.done for step in steps] == list(range(50, 401, 50))
    assert {step.total for step in steps} == {400}
    assert [(step.model, step.seed) for step in steps[::2]] == [("x", 1), ("y", 1), ("x", 2), ("y", 2)]
    assert steps[-1].accuracy == 0.99


def test_a_failing_model_is_named(labels: Any) -> None:
    class Broken:
        def predict_one(self, x: Any) -> Any:
            raise KeyError("n")

        def learn_one(self, x: Any, y: Any) -> None: ...

    with pytest.raises(
        ModelError, match=r'The model "mine" failed on letters with seed 4\. It cannot predict sample 0'
    ):
        Study(labels("ab"), {"mine": lambda seed: Broken()}, seeds=(4,)).run()


@pytest.mark.parametrize("seeds", [(), (1, 1), (-1,)])
def test_bad_seeds(seeds: tuple[int, ...], labels: Any) -> None:
    with pytest.raises(ModelError, match="seeds are"):
        Study(labels("ab"), ["no-change"], seeds=seeds)


def test_the_folder(result: StudyResult, tmp_path: Path) -> None:
    report = result.save(tmp_path / "study")
    assert report == tmp_path / "study" / "report.html"
    files = ["curves.parquet", "drifts.parquet", "events.parquet", "report.html", "runs.parquet", "summary.json"]
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == files
    assert json.loads((tmp_path / "study/summary.json").read_text()) == result.summary
    for name, frame in result.frames.items():
        assert pl.read_parquet(tmp_path / "study" / f"{name}.parquet").equals(frame)
    with pytest.raises(FedtpError, match="holds a study already"):
        result.save(tmp_path / "study")
    result.save(tmp_path / "study", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_a_report_that_fails_leaves_no_folder(
    result: StudyResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: StudyResult) -> str:
        raise RuntimeError

    monkeypatch.setattr(StudyResult, "report", fail)
    with pytest.raises(RuntimeError):
        result.save(tmp_path / "a" / "study")
    assert list(tmp_path.iterdir()) == []


def test_only_a_study_is_replaced(result: StudyResult, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(FedtpError, match="holds something that is not a study"):
        result.save(tmp_path, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
