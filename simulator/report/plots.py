"""The report's plots, as SVG text that stands inside the page."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from simulator.report.collect import MAX_STAGE_BARS, Collected, Row
from simulator.trust import CHEMICAL_ACCURACY_MHA

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR_MHA = 1e-4
"""Errors below it are drawn at it: a logarithm has no zero, and nobody asks of a VQE which side of 1e-7 hartree it is."""
MAX_POINTS = 300
WIDTH = 10.4  # inches

# Okabe and Ito's colours and neighbours that stay apart in grey and to colour-blind eyes
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A3D9A", "#8C6D31", "#4D4D4D", "#B2182B")
INK, FAINT, GRID, GOOD = "#1f2933", "#b8c2cc", "#e4e8ec", "#1b7f4d"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: smaller, and it can be searched
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "text.color": INK,
}


def convergence(found: Collected) -> str:
    """|error| on a logarithmic scale against the iteration, a line a run; empty without errors."""
    if not found.convergence:
        return ""
    with _figure(4.4, "convergence") as drawing:
        axes = drawing.axes
        longest = max(points[-1][0] for points in found.convergence.values())
        for run_id, points in found.convergence.items():
            if run_id not in found.shown_lines:
                axes.plot(*_line(points), color=FAINT, linewidth=0.7, alpha=0.6, zorder=1)
        for i, run_id in enumerate(found.shown_lines):
            x, y = _line(found.convergence[run_id])
            color = COLORS[i % len(COLORS)]
            marker = "o" if len(x) <= 40 else None
            axes.plot(
                x, y, color=color, linewidth=1.8, marker=marker, markersize=3.2, label=found.labels[run_id], zorder=3
            )
            axes.plot(x[-1:], y[-1:], color=color, marker="o", markersize=6, zorder=4)
        axes.axhline(CHEMICAL_ACCURACY_MHA, color=GOOD, linewidth=1.2, linestyle=(0, (5, 3)), zorder=2)
        axes.annotate(
            f"chemical accuracy, {CHEMICAL_ACCURACY_MHA:g} mHa",
            (1.0, CHEMICAL_ACCURACY_MHA),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            fontsize=9,
            color=GOOD,
        )
        axes.set_yscale("log")
        axes.set_xlim(-0.01 * max(longest, 1), max(longest, 1) * 1.02)
        axes.set_xlabel("iteration")
        axes.set_ylabel(f"|error to reference| (mHa), from {FLOOR_MHA:g} on")
        axes.grid(True, which="major", axis="both")
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend_right(axes)
        return drawing.svg()


def accuracy(found: Collected) -> str:
    """|error| of each run to each reference, a row a run (or the best run of a molecule, where runs are many)."""
    rows = _best_by_molecule(found.ended_well, 18)
    rows = [r for r in rows if any(x["error_mha"] is not None for x in found.references.get(r["run_id"], ()))]
    if not rows:
        return ""
    names = [n for n in _REFERENCES if any(x["reference"] == n for r in rows for x in found.references[r["run_id"]])]
    names += sorted({x["reference"] for r in rows for x in found.references[r["run_id"]]} - set(names))
    with _figure(1.3 + 0.46 * len(rows), "accuracy") as drawing:
        axes = drawing.axes
        axes.axvspan(FLOOR_MHA / 10, CHEMICAL_ACCURACY_MHA, color=GOOD, alpha=0.07, linewidth=0)
        axes.axvline(CHEMICAL_ACCURACY_MHA, color=GOOD, linewidth=1.2, linestyle=(0, (5, 3)))
        markers = "osD^vPXh<>*"
        errors: list[float] = []
        for i, name in enumerate(names):
            points = [
                (max(abs(x["error_mha"]), FLOOR_MHA), y + (i - (len(names) - 1) / 2) * 0.09)  # side by side where equal
                for y, r in enumerate(rows)
                for x in found.references[r["run_id"]]
                if x["reference"] == name and x["error_mha"] is not None
            ]
            errors += [p[0] for p in points]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    linestyle="none",
                    marker=markers[i % len(markers)],
                    color=COLORS[i % len(COLORS)],
                    markersize=7,
                    markeredgecolor="white",
                    markeredgewidth=0.7,
                    label=name.replace("_", " "),
                )
        axes.set_xscale("log")
        axes.set_xlim(min(min(errors), CHEMICAL_ACCURACY_MHA) / 2.5, max(max(errors), CHEMICAL_ACCURACY_MHA) * 2.5)
        axes.set_yticks(range(len(rows)), [found.labels[r["run_id"]] for r in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"|error| (mHa), from {FLOOR_MHA:g} on; the green band is chemical accuracy")
        axes.grid(True, axis="both")
        _legend_right(axes)
        return drawing.svg()


def stages(found: Collected) -> str:
    """Seconds by stage, a bar a run."""
    rows = [r for r in found.runs if found.timings.get(r["run_id"])][:MAX_STAGE_BARS]
    if not rows:
        return ""
    order: dict[str, int] = {}
    for run in rows:
        for timing in found.timings[run["run_id"]]:
            order.setdefault(timing["stage"], timing["stage_index"])
    names = sorted(order, key=lambda n: order[n])
    with _figure(1.2 + 0.32 * len(rows), "stages") as drawing:
        axes = drawing.axes
        left = [0.0] * len(rows)
        for i, name in enumerate(names):
            widths = [
                sum(t["seconds"] for t in found.timings[r["run_id"]] if t["stage"] == name) if r else 0.0 for r in rows
            ]
            axes.barh(range(len(rows)), widths, left=left, height=0.68, color=COLORS[i % len(COLORS)], label=name)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for y, total in enumerate(left):
            axes.annotate(
                f"{total:.3g} s", (total, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_yticks(range(len(rows)), [found.labels[r["run_id"]] for r in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, max(left) * 1.12 or 1.0)
        axes.set_xlabel("seconds")
        axes.grid(True, axis="x")
        _legend_right(axes)
        return drawing.svg()


_REFERENCES = ("FCI", "CASCI", "sector_minimum", "CCSD(T)", "CCSD", "MP2", "HF", "published")


def _best_by_molecule(runs: Sequence[Row], most: int) -> list[Row]:
    """All runs where they are few, else the best of each molecule."""
    if len(runs) <= most:
        return sorted(runs, key=lambda r: (r["molecule_name"], r["started_at"]))
    best: dict[str, Row] = {}
    for run in runs:
        error = abs(run["error_mha"]) if run["error_mha"] is not None else float("inf")
        kept = best.get(run["molecule_name"])
        if kept is None or error < abs(kept["error_mha"] if kept["error_mha"] is not None else float("inf")):
            best[run["molecule_name"]] = run
    return sorted(best.values(), key=lambda r: r["molecule_name"])[:most]


def _line(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Points of a line, thinned: the first hundred, then evenly, and the last."""
    if len(points) > MAX_POINTS:
        step = -(-len(points) // (MAX_POINTS - 100))
        points = [*points[:100], *points[100:-1:step], points[-1]]
    return [p[0] for p in points], [max(abs(p[1]), FLOOR_MHA) for p in points]


def _legend_right(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9, borderaxespad=0.0)


class _figure:
    """A figure with one pair of axes, in the report's style while it is drawn."""

    figure: "Figure"
    axes: "Axes"

    def __init__(self, height: float, salt: str) -> None:
        import matplotlib
        from matplotlib.figure import Figure

        # the salt makes ids of two plots in one page differ, and a plot made twice the same
        style: Any = {**_STYLE, "svg.hashsalt": salt}
        self._style = matplotlib.rc_context(style)
        self._style.__enter__()
        self.figure = Figure(figsize=(WIDTH, height))
        self.axes = self.figure.add_subplot()

    def __enter__(self) -> "_figure":
        return self

    def __exit__(self, *error: Any) -> None:
        self._style.__exit__(*error)

    def svg(self) -> str:
        out = io.StringIO()
        self.figure.savefig(
            out, format="svg", bbox_inches="tight", pad_inches=0.05, transparent=True, metadata={"Date": None}
        )
        text = out.getvalue()
        return text[text.index("<svg") :].replace("<svg ", '<svg role="img" ', 1)
