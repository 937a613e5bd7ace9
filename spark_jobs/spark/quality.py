"""The published tables held against their facts, by Spark: what `vqe tables verify` does on one machine."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyspark.sql import functions as F

from spark_jobs.maintenance import tag_issues
from spark_jobs.quality import Issue
from spark_jobs.spark import builder as spark_builder
from spark_jobs.tables import ISSUES, TABLES, Table
from spark_jobs.warehouse import CATALOG_NAME, Warehouse


@dataclass
class Checked:
    """Rows by table, facts that do not hold, and issues that are open, by check."""

    rows: dict[str, int] = field(default_factory=dict)
    broken: list[Issue] = field(default_factory=list)
    issues: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        broken = [{"check": i.check_name, "table": i.table_name, "detail": i.detail} for i in self.broken]
        return {"rows": self.rows, "broken": broken, "issues": self.issues}


def check(spark: Any, data_dir: str | Path, *, tables: Sequence[Table] = TABLES) -> Checked:
    """Keys are unique, numbers finite and tags complete in the newest published batch."""
    found = Checked()
    with Warehouse.read(data_dir, tables) as warehouse:
        found.broken += tag_issues(warehouse)
        published = warehouse.published()
    for table in tables:
        version = f" VERSION AS OF '{published[-1]}'" if published else ""
        rows = spark.sql(f"SELECT * FROM {CATALOG_NAME}.{table.identifier}{version}")
        infinite = spark_builder.not_finite(table)
        bad = F.lit(0) if infinite is None else F.count_if(infinite)
        keys = F.count_distinct(F.struct(*table.key))
        n_rows, n_keys, n_bad = rows.agg(F.count("*"), keys, bad).collect()[0]
        found.rows[table.name] = n_rows
        if n_keys != n_rows:
            found.broken.append(Issue("key_twice", table.name, {}, f"{n_rows - n_keys} keys stand twice"))
        if n_bad:
            found.broken.append(Issue("not_finite", table.name, {}, f"{n_bad} rows have NaN or infinite numbers"))
        if table.name == ISSUES.name:
            found.issues = {r["check_name"]: r["count"] for r in rows.groupBy("check_name").count().collect()}
    return found
