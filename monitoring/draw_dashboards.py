#!/usr/bin/env python3
"""Draws the dashboards without Grafana: each panel's queries are asked of a Prometheus, and a PNG a dashboard is written.

    python monitoring/draw_dashboards.py --prometheus http://localhost:9090 --out /tmp/dashboards [--minutes 60]

Panels and queries that have no data are named, and the exit code is then 1; those of panels that only a GPU gives data, or
that `--may-be-empty` names, are named and allowed.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "grafana"))

from make_dashboards import OPTIONAL  # noqa: E402

POINTS = 240
_COLORS = {"green": "#2e9e4f", "yellow": "#e0a800", "red": "#d64545", "blue": "#3b7dd8"}


@dataclass
class Result:
    """What a query gave: for each series its labels, times (Unix, seconds) and values."""

    rows: list[tuple[dict[str, str], list[float], list[float]]] = field(default_factory=list)


@dataclass
class Drawn:
    """A dashboard that was drawn."""

    path: pathlib.Path
    empty: list[str]  # panels without data
    empty_queries: list[tuple[str, str]]  # panel and expression of queries without data in panels that have some


class Prometheus:
    """A Prometheus to ask."""

    def __init__(self, url: str, end: float | None = None, minutes: float = 60) -> None:
        self.url, self.end, self.seconds = url.rstrip("/"), end or time.time(), 60 * minutes
        self.step = max(5.0, self.seconds / POINTS)

    def ask(self, expr: str, *, instant: bool) -> Result:
        """Run a query as Grafana would.

        Raises:
            ValueError: Prometheus does not take the expression.
        """
        given = {"query": self.filled(expr)}
        if instant:
            given["time"] = str(self.end)
        else:
            given |= {"start": str(self.end - self.seconds), "end": str(self.end), "step": str(self.step)}
        request = urllib.request.Request(
            f"{self.url}/api/v1/query{'' if instant else '_range'}", data=urllib.parse.urlencode(given).encode()
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as response:
                answer = json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{expr}: {error.read().decode('utf-8', 'replace')[:300]}") from None
        result = Result()
        for row in answer["result"]:
            points = [row["value"]] if instant else row["values"]
            kept = [(float(t), float(v)) for t, v in points if v not in ("NaN", "+Inf", "-Inf")]
            if kept:
                result.rows.append((row["metric"], [t for t, _ in kept], [v for _, v in kept]))
        return result

    def filled(self, expr: str) -> str:
        """The expression with every variable at All, and $process the one that has gone through most iterations."""
        expr = re.sub(r"\$(molecule|ansatz|engine)\b", ".*", expr).replace("$__range", f"{self.seconds:.0f}s")
        return expr.replace("$process", self._process) if "$process" in expr else expr

    @cached_property
    def _process(self) -> str:
        seen = self.ask(f"max by (instance) (changes(vqe_run_iterations[{self.seconds:.0f}s]))", instant=True).rows
        return max(seen, key=lambda row: row[2][-1])[0]["instance"] if seen else ""


def draw(dashboard: dict[str, Any], prometheus: Prometheus, out: pathlib.Path) -> Drawn:
    """Draw a dashboard's panels where Grafana would place them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = dashboard["panels"]
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels)
    figure = pyplot.figure(figsize=(20, max(4.0, 0.42 * height)), constrained_layout=False)
    grid = figure.add_gridspec(height, 24, wspace=8, hspace=6, left=0.04, right=0.98, top=1 - 2 / height, bottom=0.03)
    figure.suptitle(dashboard["title"], fontsize=15, y=1 - 0.2 / height)
    empty, empty_queries = [], []
    for panel in panels:
        place = panel["gridPos"]
        axes = figure.add_subplot(grid[place["y"] : place["y"] + place["h"] - 1, place["x"] : place["x"] + place["w"]])
        results = [prometheus.ask(t["expr"], instant=t["instant"]) for t in panel["targets"]]
        found = [bool(r.rows) for r in results]
        axes.set_title(panel["title"], fontsize=10, loc="left")
        if not any(found):
            empty.append(panel["title"])
            axes.text(
                0.5, 0.5, panel["fieldConfig"]["defaults"].get("noValue", "no data"), ha="center", color="#999999"
            )
            axes.set_axis_off()
            continue
        empty_queries += [
            (panel["title"], t["expr"]) for t, has in zip(panel["targets"], found, strict=True) if not has
        ]
        _DRAW[panel["type"]](axes, panel, results)
    path = out / f"{dashboard['uid']}.png"
    figure.savefig(path, dpi=75)
    pyplot.close(figure)
    return Drawn(path, empty, empty_queries)


def _legend(template: str, labels: dict[str, str]) -> str:
    if template in ("", "__auto"):
        return ", ".join(f"{k}={v}" for k, v in labels.items() if k != "__name__") or labels.get("__name__", "")
    return re.sub(r"{{\s*(\w+)\s*}}", lambda m: labels.get(m[1], ""), template).strip()


def _color(value: float, steps: list[dict[str, Any]]) -> str:
    name = steps[0]["color"]
    for step in steps[1:]:
        if value >= step["value"]:
            name = step["color"]
    return _COLORS.get(name, name)


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit, roughly as Grafana writes it."""
    if unit == "dateTimeAsIso":
        return time.strftime("%H:%M:%S", time.gmtime(value / 1e3)) if value else "going on"
    if unit == "percentunit":
        return f"{100 * value:.{1 if decimals is None else decimals}f} %"
    if unit in ("bytes", "Bps"):
        for name in ("B", "KiB", "MiB", "GiB", "TiB"):
            if abs(value) < 1024 or name == "TiB":
                return f"{value:.3g} {name}{'/s' if unit == 'Bps' else ''}"
            value /= 1024
    if unit == "s":
        return f"{value / 3600:.1f} h" if value > 7200 else f"{value / 60:.1f} min" if value > 120 else f"{value:.3g} s"
    suffix = (
        unit.removeprefix("suffix:") if unit.startswith("suffix:") else {"celsius": " °C", "watt": " W"}.get(unit, "")
    )
    return (f"{value:.{decimals}f}" if decimals is not None else f"{value:,.6g}") + suffix


def _stat(axes: Any, panel: dict[str, Any], results: list[Result]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    value = results[0].rows[0][2][-1]
    text = shown(value, defaults["unit"], defaults.get("decimals"))
    for mapping in defaults["mappings"]:
        for key, to in mapping["options"].items():
            if float(key) == value:
                text = to["text"]
    axes.set_facecolor(_color(value, defaults["thresholds"]["steps"]))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=18, color="white", transform=axes.transAxes)


def _bars(axes: Any, panel: dict[str, Any], results: list[Result]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    rows = [
        (_legend(target["legendFormat"], labels), values[-1])
        for target, result in zip(panel["targets"], results, strict=True)
        for labels, _, values in result.rows
    ]
    rows.sort()
    names, values = [n for n, _ in rows], [v for _, v in rows]
    axes.barh(range(len(rows)), values, alpha=0.6, color=[_color(v, defaults["thresholds"]["steps"]) for v in values])
    axes.set_yticks([])
    axes.invert_yaxis()
    for i, (name, value) in enumerate(zip(names, values, strict=True)):
        text = f" {name}: {shown(value, defaults['unit'], defaults.get('decimals'))}"
        axes.text(0.01, i, text, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    axes.tick_params(axis="x", labelsize=7)


def _table(axes: Any, panel: dict[str, Any], results: list[Result]) -> None:
    organize = panel["transformations"][1]["options"]
    units = {o["matcher"]["options"]: o["properties"][0]["value"] for o in panel["fieldConfig"]["overrides"]}
    decimals = {
        o["matcher"]["options"]: p["value"]
        for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "decimals"
    }  # fmt: skip
    columns = list(organize["indexByName"])
    merged: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for target, result in zip(panel["targets"], results, strict=True):
        name = f"Value #{target['refId']}"
        for labels, _, values in result.rows:
            kept = {k: v for k, v in labels.items() if k != "__name__"}
            row = merged.setdefault(tuple(sorted(kept.items())), dict(kept))
            title = organize["renameByName"].get(name, name)
            row[name] = shown(values[-1], units.get(title, "short"), decimals.get(title))
    axes.set_axis_off()
    cells = [[row.get(c, "") for c in columns] for row in merged.values()]
    cells.sort()
    drawn = axes.table(
        cellText=cells[:14], colLabels=[organize["renameByName"].get(c, c) for c in columns], loc="upper center",
        cellLoc="left",
    )  # fmt: skip
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)


def _lines(axes: Any, panel: dict[str, Any], results: list[Result]) -> None:
    end = max(times[-1] for result in results for _, times, _ in result.rows)
    for target, result in zip(panel["targets"], results, strict=True):
        for labels, times, values in result.rows:
            minutes = [(t - end) / 60 for t in times]
            axes.plot(
                minutes,
                values,
                label=_legend(target["legendFormat"], labels)[:60],
                linewidth=1.2,
                marker=".",
                markersize=3,
            )
    _frame(axes, panel, "minutes")


def _trend(axes: Any, panel: dict[str, Any], results: list[Result]) -> None:
    iterations, curve = ({t: v for _, ts, vs in r.rows for t, v in zip(ts, vs, strict=True)} for r in results)
    points = sorted((iterations[t], value) for t, value in curve.items() if t in iterations)
    axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        label=panel["targets"][1]["legendFormat"],
        marker=".",
        linewidth=1.2,
    )
    _frame(axes, panel, "iteration")


def _frame(axes: Any, panel: dict[str, Any], horizontal: str) -> None:
    """What curves have in common: scale, thresholds, names of the axes, legend."""
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    if custom["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
    if custom["thresholdsStyle"]["mode"] == "line":
        for step in defaults["thresholds"]["steps"][1:]:
            axes.axhline(step["value"], color=_COLORS.get(step["color"], step["color"]), linestyle="--", linewidth=1)
    axes.set_xlabel(horizontal, fontsize=7)
    axes.set_ylabel(defaults["unit"].removeprefix("suffix:").strip(), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[:10], names[:10], fontsize=6, loc="upper left", framealpha=0.6)


_DRAW = {"stat": _stat, "bargauge": _bars, "table": _table, "timeseries": _lines, "trend": _trend}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prometheus", default="http://localhost:9090")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the PNGs")
    parser.add_argument("--minutes", type=float, default=60, help="how much of the past is drawn")
    parser.add_argument(
        "--may-be-empty", action="append", default=[], metavar="TITLE", help="a panel that needs no data"
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    prometheus = Prometheus(options.prometheus, minutes=options.minutes)
    allowed = OPTIONAL | set(options.may_be_empty)
    missing = 0
    for file in sorted((HERE / "grafana" / "dashboards").glob("*.json")):
        drawn = draw(json.loads(file.read_text()), prometheus, options.out)
        print(drawn.path)
        for title, expr in [(title, "") for title in drawn.empty] + drawn.empty_queries:
            missing += title not in allowed
            part = f", in a part of it: {expr}" if expr else ""
            print(f"  no data: {title}{part}{' (allowed)' if title in allowed else ''}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
