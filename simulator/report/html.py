"""The report's page, from what was collected."""

import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import simulator
from simulator.report import plots
from simulator.report.collect import MAX_DETAILS, MAX_STAGE_BARS, MAX_TABLE, Collected

MAX_FAILED = 50


def page(found: Collected, made_at: datetime | None = None) -> str:
    """The HTML of a report, with everything it needs inside."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )
    environment.filters |= {"energy": energy, "mha": mha, "seconds": seconds, "count": count, "fixed": fixed}
    made_at = made_at or datetime.now(UTC)
    molecules = sorted({r["molecule_name"] for r in found.runs})
    named = ", ".join(molecules[:6]) + (f" and {len(molecules) - 6} more" if len(molecules) > 6 else "")
    runs = f"{len(found.runs):,} run" + ("s" if len(found.runs) != 1 else "")
    return environment.get_template("template.html.j2").render(
        title=f"VQE report: {named}",
        subtitle=f"{runs}, made {made_at:%Y-%m-%d %H:%M} UTC",
        tiles=tiles(found),
        runs=found.runs[:MAX_TABLE],
        labels=found.labels,
        convergence=plots.convergence(found),
        faint=len(found.convergence) - len(found.shown_lines),
        accuracy=plots.accuracy(found),
        best_only=len(found.ended_well) > 18,
        stages=plots.stages(found),
        stage_limit=MAX_STAGE_BARS if len(found.runs) > MAX_STAGE_BARS else None,
        failed=found.failed[:MAX_FAILED],
        failed_left_out=max(0, len(found.failed) - MAX_FAILED),
        details=found.runs[:MAX_DETAILS],
        references=found.references,
        left_out=found.left_out,
        version=simulator.__version__,
        batch=found.batch,
    )


def tiles(found: Collected) -> list[dict[str, Any]]:
    """The figures on top."""
    done = found.ended_well
    judged = [r for r in done if r["chemical_accuracy"] is not None]
    accurate = sum(bool(r["chemical_accuracy"]) for r in judged)
    errors = [abs(r["error_mha"]) for r in done if r["error_mha"] is not None]
    unphysical = sum(r["physical"] is False for r in done)
    shown = [
        {"value": f"{len(done):,} of {len(found.runs):,}", "what": "runs completed"},
        {"value": f"{accurate:,} of {len(judged):,}", "what": "within chemical accuracy"},
    ]
    if errors:
        shown.append({"value": f"{mha(statistics.median(errors), sign=False)} mHa", "what": "median |error|"})
    shown.append({"value": f"{unphysical:,}", "what": "unphysical"})
    shown.append({"value": f"{seconds(sum(r['total_seconds'] for r in found.runs))} s", "what": "in all"})
    return shown


def energy(value: float | None) -> str:
    """An energy in hartree, to 1e-6."""
    return "-" if value is None else f"{value:.6f}".replace("-", "\N{MINUS SIGN}")


def mha(value: float | None, sign: bool = True) -> str:
    """An error in millihartree, as many digits as tell something."""
    if value is None:
        return "-"
    plus = "+" if sign else ""
    text = f"{value:{plus}.3f}" if abs(value) >= 0.0005 or abs(value) < 1e-6 else f"{value:{plus}.0e}"
    return text.replace("-", "\N{MINUS SIGN}")


def seconds(value: float | None) -> str:
    """Seconds, to three digits."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: int | None) -> str:
    """A whole number with thousands apart."""
    return "-" if value is None else f"{value:,}"


def fixed(value: float | None) -> str:
    """An expectation value, to 1e-4."""
    return "-" if value is None else f"{value:.4f}"
