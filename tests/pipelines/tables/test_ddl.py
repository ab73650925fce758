from pathlib import Path

import duckdb
import pytest

from pipelines.errors import InputError
from pipelines.storage.folder import Folder
from pipelines.tables.ddl import ddl

COUNT = "SELECT run, count(*) FROM images GROUP BY run ORDER BY run"


@pytest.fixture
def table(tmp_path: Path, labelled_run) -> Folder:
    """Two complete runs of ten images, and one that is not."""
    table = Folder(str(tmp_path / "it's a table"))
    labelled_run("a night").write(table)
    labelled_run("b", "2026-11-22").write(table)
    labelled_run("c", "2026-11-23", status="stopped").write(table)
    return table


def test_duckdb_sees_the_complete_runs(table: Folder) -> None:
    with duckdb.connect() as connection:
        connection.execute(ddl(table.uri, "duckdb"))
        assert connection.sql(COUNT).fetchall() == [("a night", 10), ("b", 10)]
        assert connection.sql("SELECT count(DISTINCT run) FROM detections").fetchall() == [(2,)]
        assert str(connection.sql("SELECT date FROM images").types[0]) == "DATE"


def test_spark_sees_the_complete_runs(table: Folder) -> None:
    sql = pytest.importorskip("pyspark.sql", reason="needs pyspark: the extra `spark`")
    try:
        session = sql.SparkSession.builder.master("local[1]").getOrCreate()
    except Exception as error:
        pytest.skip(f"needs java: {error}")
    for statement in filter(str.strip, ddl(table.uri, "spark").split(";")):
        session.sql(statement)
    assert [tuple(row) for row in session.sql(COUNT).collect()] == [("a night", 10), ("b", 10)]
    session.stop()


def test_athena_gets_each_column_and_the_partitions_by_projection(bucket, labelled_run) -> None:
    table = Folder(f"s3://{bucket.name}/labels")
    labelled_run("night", "2026-11-21").write(table)
    images, detections = ddl(table.uri, "athena").split(";\n")
    assert "`size_bytes` bigint,\n    `width` int" in images
    assert "`class_name` string,\n    `score` float" in detections
    assert "'projection.date.range' = '2026-11-21,NOW'" in images
    assert "'projection.run.values' = 'night'" in images
    template = f"s3://{bucket.name}/labels/images/date=${{date}}/run=${{run}}/"
    assert f"'storage.location.template' = '{template}'" in images


def test_what_an_engine_cannot_read_is_refused(table: Folder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no s3:// prefix, and Athena reads nothing else"):
        ddl(table.uri, "athena")
    with pytest.raises(InputError, match="is not a table"):
        ddl(str(tmp_path / "nowhere"), "duckdb")
