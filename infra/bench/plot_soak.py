"""Draws the JSON of `flowchain bench soak --out FILE` as an SVG. Needs matplotlib, which the pipeline does not.

usage: python -m infra.bench.plot_soak FILE SVG
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson


def draw(document: dict[str, Any], to: Path) -> None:
    """Write the resident memory of every worker over time."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "flowchain"
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(8, 4))
    series = document["series"]
    for worker in document["workers"]:
        axes.plot([reading["at_s"] / 60 for reading in series], [reading[worker] for reading in series], label=worker)
    axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=(0, None), title=f"{document['rate']:,} events/s")
    axes.legend()
    figure.savefig(to, metadata={"Date": None})


if __name__ == "__main__":
    draw(orjson.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
