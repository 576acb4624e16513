"""What the docs say of classes and links is what is simulated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulations.devices import CLASSES, LINKS

TEXT = (Path(__file__).resolve().parents[3] / "docs/devices.md").read_text(encoding="utf-8")


def row(name: str) -> list[str]:
    """The cells of a row of a table, without the marks of their sources."""
    found = re.search(rf"^\| `{name}` \|(.*)\|$", TEXT, re.MULTILINE)
    assert found, name
    return [re.sub(r" (A|\[\d\])$", "", cell.strip()) for cell in found[1].split("|")]


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_as_the_docs_say(name: str) -> None:
    kind = CLASSES[name]
    memory = f"{kind.memory_kb / 1024**2:g} GB" if kind.memory_kb >= 1024**2 else f"{kind.memory_kb:g} KB"
    power = [f"{kind.battery_wh:g}", f"{kind.charge_watts:g}"] if kind.battery_wh else ["mains", ""]
    assert row(name) == [
        f"{kind.speed_gflops:g}",
        memory,
        f"{kind.power_watts:g}",
        f"{kind.joules_per_gflop:.2f}".rstrip("0").rstrip("."),
        f"{kind.idle_watts:g}",
        *power,
        f"`{kind.network}`",
    ]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_is_as_the_docs_say(name: str) -> None:
    link = LINKS[name]
    assert row(name) == [
        f"{link.down_mbps:g} / {link.up_mbps:g}",
        f"{link.down_sigma:g} / {link.up_sigma:g}",
        f"{link.down_cv:g} / {link.up_cv:g}",
        f"{link.latency_seconds:g}",
        f"{link.receive_watts:g} / {link.send_watts:g}",
        f"{link.joules_per_byte_down * 1e6:.2g} / {link.joules_per_byte_up * 1e6:.2g}",
    ]
