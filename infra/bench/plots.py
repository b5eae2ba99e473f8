"""Draws the JSON documents of `flowchain bench` as SVG. Needs matplotlib (`make install-bench`), which the pipeline does not.

usage: python -m infra.bench.plots soak|growth|ingest FILE SVG
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

Document = dict[str, Any]
WIDTH, HEIGHT = 8, 4
"""Inches."""


def soak(document: Document, axes: Any) -> None:
    """The resident memory of every worker over time."""
    series = document["series"]
    for worker in document["workers"]:
        axes.plot([reading["at_s"] / 60 for reading in series], [reading[worker] for reading in series], label=worker)
    axes.set(xlabel="minutes", ylabel="resident memory, MB", ylim=(0, None), title=f"{document['rate']:,} events/s")
    axes.legend()


def growth(document: Document, axes: Any) -> None:
    """What an event costs against the size of what is held, relative to the smallest size."""
    for name in dict.fromkeys(point["axis"] for point in document["points"]):
        points = [point for point in document["points"] if point["axis"] == name]
        sizes = [point["size"] for point in points]
        (line,) = axes.plot(sizes, [point["ingest_ratio"] for point in points], marker="o", label=f"ingest: {name}")
        ratios = [point["analysis_ratio"] for point in points]
        axes.plot(sizes, ratios, marker="o", linestyle="--", color=line.get_color(), label=f"analysis: {name}")
    axes.set(xscale="log", yscale="log", xlabel="size", ylabel="cost per event, smallest size = 1")
    axes.legend(fontsize="small")


def ingest(document: Document, axes: Any) -> None:
    """Events per second of every engine, by events per message, with one worker."""
    runs = [run for run in document["runs"] if run["workers"] == 1 and run["events_per_s"]]
    engines = list(dict.fromkeys(run["engine"] for run in runs))
    sizes = sorted({run["events_per_message"] for run in runs})
    for number, size in enumerate(sizes):
        found = {run["engine"]: run["events_per_s"] for run in runs if run["events_per_message"] == size}
        at = [place + (number - (len(sizes) - 1) / 2) * 0.8 / len(sizes) for place in range(len(engines))]
        axes.bar(at, [found.get(engine, 0) for engine in engines], 0.8 / len(sizes), label=f"{size} per message")
    axes.set(yscale="log", ylabel="events/s", xticks=range(len(engines)), xticklabels=engines)
    axes.legend()


KINDS: dict[str, Callable[[Document, Any], None]] = {"soak": soak, "growth": growth, "ingest": ingest}


def draw(kind: str, document: Document, to: Path) -> None:
    """Write the plot of a document."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "flowchain"
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT), layout="tight")
    KINDS[kind](document, axes)
    figure.savefig(to, metadata={"Date": None})


if __name__ == "__main__":
    draw(sys.argv[1], orjson.loads(Path(sys.argv[2]).read_bytes()), Path(sys.argv[3]))
