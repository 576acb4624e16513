"""Coverage of the blocks and memory of the devices, as the report shows them."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from fedtp.report.fleet.blocks import coverage_part, memory_table
from fedtp.report.page import Note


def test_updates_that_were_used_are_counted_block_by_block(make) -> None:
    results = make(devices=20, rounds=10)
    used = results.devices.filter(pl.col("status") == "accepted")
    totals = {name: int(used["blocks"].str.split(" ").list.contains(name).sum()) for name in ("0", "2")}
    part = coverage_part(results)
    assert part.caption == f"In all: {totals['0']} of block 0, {totals['2']} of block 2."
    per_round, per_class = part.views["Per round"], part.views["Per class"]
    assert [(trace.name, round(sum(trace.y))) for trace in per_round.data] == list(totals.items())
    assert [trace.name for trace in per_class.data] == results.classes
    assert [sum(trace.x[i] for trace in per_class.data) for i in range(2)] == list(totals.values())


def test_a_block_that_nobody_trained_is_shown_as_such(make) -> None:
    results = make(devices=5, rounds=4)
    results.summary["updates_by_block"] = {"0": 3, "1": 0, "2": 3}
    lonely = coverage_part(results).views["Per round"].data[1]
    assert (lonely.name, sum(lonely.y)) == ("1", 0)


def test_without_training_there_is_nothing_to_show(make) -> None:
    results = make(devices=5, rounds=4)
    nothing = replace(results, devices=results.devices.with_columns(blocks=pl.lit(""), peak_bytes=pl.lit(0)))
    assert isinstance(coverage_part(nothing), Note)
    assert list(memory_table(nothing).rows) == []


def test_each_class_has_its_peak_beside_that_of_backpropagation(make) -> None:
    rows = {row[0]: row[1:] for row in memory_table(make()).rows}
    assert rows["mcu"][1:] == ("1", "30 kB", "240 kB", "12.5%")
    assert rows["pi"][1:] == ("2", "60 kB", "240 kB", "25.0%")
