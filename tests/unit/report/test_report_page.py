"""The report: one page that needs nothing else, for one run and for many."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from raw_events import Run, write_runs

from simulator.errors import InputError
from simulator.report.collect import MAX_DETAILS, MAX_TABLE, collect
from simulator.report.html import energy, mha, page
from spark_jobs.arrow import batch


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("report")
    runs = [
        Run(i, molecule=i % 3, iterations=4, references=4, status="failed" if i == 4 else "completed")
        for i in range(210)
    ]
    runs[0].overrides = {"molecule_name": "<b>h2 & co</b>", "notes": ["symmetry screening <off>"]}
    runs[1].overrides = {"physical": False, "physical_reason": "the electron number is 2.3"}
    write_runs(root, runs)
    batch.build(root)
    return root


class _Checker(HTMLParser):
    """Collects what a page would load, and tags that are not closed."""

    void = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe"):
            self.loads.append(tag)
        self.loads += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href") and not str(v).startswith("#")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_loads_nothing_and_closes_its_tags(data_dir: Path) -> None:
    checker = _Checker()
    text = page(collect(data_dir))
    checker.feed(text)
    assert checker.open == []
    assert checker.loads == []
    assert text.count("<svg") == 3
    assert "url(http" not in text


def test_names_and_notes_are_escaped(data_dir: Path) -> None:
    text = page(collect(data_dir, ["<b>h2 & co</b>"]))
    assert "<b>h2 &" not in text.replace("<title>", "")
    assert "&lt;b&gt;h2 &amp; co" in text
    assert "symmetry screening &lt;off&gt;" in text


def test_one_run_is_chosen_by_the_beginning_of_its_id(data_dir: Path) -> None:
    wanted = Run(7).run_id
    found = collect(data_dir, [wanted[:20], wanted])
    assert [r["run_id"] for r in found.runs] == [wanted]
    text = page(found)
    assert "1 run," in text
    assert "<details open>" in text


def test_a_run_that_is_not_there_is_named(data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"no run water: .*newest: 019"):
        collect(data_dir, ["water"])


def test_what_is_left_out_of_many_runs_is_said(data_dir: Path) -> None:
    found = collect(data_dir)
    text = page(found)
    assert len(found.runs) == 210
    assert f"the newest {MAX_TABLE} of 210 runs" in text
    assert text.count("<details") == MAX_DETAILS
    assert len(text) < 1_000_000


def test_failed_and_unphysical_runs_stand_out_with_their_reasons(data_dir: Path) -> None:
    text = page(collect(data_dir, [Run(4).run_id, Run(1).run_id]))
    assert "SCF did not converge" in text
    assert re.search(r'mark bad" title="the electron number is 2.3">no<', text)
    assert "1 of 2" in text


def test_the_figures_on_top_are_those_of_the_runs(data_dir: Path) -> None:
    found = collect(data_dir)
    text = page(found)
    assert "209 of 210" in text
    assert len(found.ended_well) == 209


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "+0.000"), (4e-13, "+0.000"), (1e-5, "+1e−05"), (-0.38, "−0.380"), (None, "-")]
)
def test_errors_show_the_digits_that_tell_something(value: float | None, text: str) -> None:
    assert mha(value) == text


def test_energies_have_six_decimals() -> None:
    assert energy(-1.1373060357) == "−1.137306"
