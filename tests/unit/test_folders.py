"""Imports go downwards only: what a module needs is in its own folder or in one that stands lower."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = (
    "cli", "report", "live", "runs", "tasks", "observability", "queue", "kafka", "sinks", "vqe", "engines", "operators", "chemistry",
    "events",
)  # fmt: skip
"""Folders of `simulator/`, as docs/architecture.md lists them; each may import those after it and the modules of `simulator/` itself."""

LAKE_ORDER = ("jobs", "spark", "arrow", "core")
"""Folders of `spark_jobs/`; `core` is the modules beside them, which need no engine. Each may import those after it."""

BASE_FOR_TABLES = ("events",)
"""What of `simulator/` the tables' code may use, beside the modules of `simulator/` itself."""


def imports() -> dict[str, set[str]]:
    """Modules of ours and the modules of ours that they import, those for type checkers and inside functions included."""
    # The `__init__.py` of `simulator` and of `events` are doors: they name what is behind them and load none of it.
    files = {name_of(p): p for top in ("simulator", "spark_jobs") for p in (ROOT / top).rglob("*.py")}
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in files.items():
        if name in ("simulator", "simulator.events"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                wanted = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            for module in wanted:
                target = module if module in files else module.rpartition(".")[0]
                if target in files and target != name:
                    found[name].add(target)
    return found


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def folder_of(module: str) -> str:
    """The folder of `simulator/`, `itself` for the modules beside the folders, or `spark_jobs`."""
    parts = module.split(".")
    if parts[0] != "simulator":
        return parts[0]
    return parts[1] if len(parts) > 1 and (ROOT / "simulator" / parts[1]).is_dir() else "itself"


def lake_folder_of(module: str) -> str:
    """The folder of `spark_jobs/`, `core` for the modules beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "spark_jobs" / parts[1]).is_dir() else "core"


def upward(found: dict[str, set[str]]) -> list[str]:
    rank = {folder: i for i, folder in enumerate((*ORDER, "itself"))}
    lake_rank = {folder: i for i, folder in enumerate(LAKE_ORDER)}
    wrong = []
    for module, targets in found.items():
        here = folder_of(module)
        for target in targets:
            there = folder_of(target)
            if here == there == "spark_jobs":
                allowed = lake_rank[lake_folder_of(target)] >= lake_rank[lake_folder_of(module)]
            elif here == "spark_jobs":
                allowed = there in ("itself", *BASE_FOR_TABLES)
            elif there == "spark_jobs":
                allowed = True  # the command line, reports and the exporter read the tables
            else:
                allowed = rank[there] >= rank[here]
            if not allowed:
                wrong.append(f"{module} imports {target}")
    return sorted(wrong)


def circles(found: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which needs the others (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in sorted(found.get(module, ())):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(found):
        if module not in index:
            visit(module)
    return groups


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    return imports()


def test_every_folder_has_its_place_in_the_order(found):
    assert {folder_of(m) for m in found} - {"itself", "spark_jobs"} <= set(ORDER)
    assert {lake_folder_of(m) for m in found if folder_of(m) == "spark_jobs"} == set(LAKE_ORDER)


def test_no_import_goes_upwards(found):
    assert upward(found) == []


def test_no_modules_need_each_other_in_a_circle(found):
    assert circles(found) == []


def test_the_documentation_lists_the_folders_in_this_order():
    listed = [
        line.split("`")[1].removeprefix("simulator/").rstrip("/")
        for line in (ROOT / "docs" / "architecture.md").read_text().splitlines()
        if line.startswith("| `simulator/") and "`simulator/` itself" not in line
    ]
    assert tuple(listed) == ORDER


def test_every_file_that_the_walks_name_is_there():
    text = (ROOT / "docs" / "where.md").read_text()
    named = set(re.findall(r"`((?:[\w-]+/)+[\w-]+\.(?:py|avsc))`", text))
    assert len(named) > 30
    folders = ("", "simulator/", "spark_jobs/")
    assert [n for n in named if not any((ROOT / folder / n).exists() for folder in folders)] == []


@pytest.mark.parametrize(
    ("module", "target", "says"),
    [
        ("simulator.chemistry.scf", "simulator.vqe.spec", "simulator.chemistry.scf imports simulator.vqe.spec"),
        ("simulator.errors", "simulator.events.avro", "simulator.errors imports simulator.events.avro"),
        ("spark_jobs.raw", "simulator.vqe.spec", "spark_jobs.raw imports simulator.vqe.spec"),
        ("spark_jobs.batch", "spark_jobs.arrow.stager", "spark_jobs.batch imports spark_jobs.arrow.stager"),
        ("spark_jobs.arrow.batch", "spark_jobs.spark.stager", "spark_jobs.arrow.batch imports spark_jobs.spark.stager"),
        ("spark_jobs.spark.stager", "spark_jobs.jobs.ingest", "spark_jobs.spark.stager imports spark_jobs.jobs.ingest"),
    ],
)
def test_an_import_that_goes_upwards_is_seen(module, target, says):
    assert upward({module: {target}}) == [says]


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
