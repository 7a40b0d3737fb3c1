#!/usr/bin/env python3
"""DuckDB on sorted Parquet: the floor that Highwater is measured against.

    duckdb_floor.py <cpu.csv> <queries.json> <runs>

Needs the packages duckdb and pyarrow. Writes Parquet (zstd, sorted by hostname and time) beside the CSV,
computes cpu_1m and cpu_1h from it, runs every query once cold and <runs> times warm, and prints

    {"queries": {name: {"ms": median, "rows": n}}, "builds": {what: value}}
"""

import json
import os
import statistics
import sys
import time

import duckdb

FIELDS = ["user", "system", "idle", "nice", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"]


def outputs():
    """The 18 columns of the aggregates."""
    columns = []
    for i, field in enumerate("usage_" + name for name in FIELDS):
        functions = ["mean", "min", "max", "sum", "count"] if i < 2 else ["mean"]
        columns += [f"{function}({field}) AS {field}_{function}" for function in functions]
    return ", ".join(columns)


def aggregate_sql(interval):
    return (
        f"SELECT time_bucket(INTERVAL '{interval}', time) AS time, hostname, {outputs()} "
        "FROM cpu GROUP BY 1, 2"
    )


def timed(run):
    """Milliseconds, and what the call returned."""
    start = time.perf_counter()
    result = run()
    return (time.perf_counter() - start) * 1000, result


def measure(connection, sql, runs):
    def ask():
        return connection.sql(sql).to_arrow_table().num_rows

    _, rows = timed(ask)
    return {"ms": statistics.median(timed(ask)[0] for _ in range(runs)), "rows": rows}


def load(connection, csv, parquet):
    kinds = {"time": "TIMESTAMP"}
    connection.execute(
        f"COPY (SELECT * FROM read_csv('{csv}', types={kinds}, all_varchar=false) "
        f"ORDER BY hostname, time) TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)"
    )
    connection.execute(f"CREATE VIEW cpu AS SELECT * FROM read_parquet('{parquet}')")


def build(connection, folder, runs):
    builds = {}
    for name, interval in [("cpu_1m", "1 minute"), ("cpu_1h", "1 hour")]:
        create = f"CREATE OR REPLACE TABLE {name}_built AS {aggregate_sql(interval)}"
        ms = [timed(lambda: connection.execute(create))[0] for _ in range(runs + 1)][1:]
        builds[f"{name} seconds"] = statistics.median(ms) / 1000
        file = os.path.join(folder, f"{name}.parquet")
        connection.execute(
            f"COPY (SELECT * FROM {name}_built ORDER BY hostname, time) TO '{file}' "
            "(FORMAT parquet, COMPRESSION zstd)"
        )
        connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{file}')")
    return builds


def main():
    csv, plan, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    folder = os.path.dirname(csv)
    parquet = os.path.join(folder, "cpu.parquet")
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    load(connection, csv, parquet)
    builds = {"Parquet MB": os.path.getsize(parquet) / 1e6}
    builds.update(build(connection, folder, runs))
    with open(plan, encoding="utf-8") as file:
        queries = json.load(file)
    answers = {query["name"]: measure(connection, query["sql"], runs) for query in queries}
    print(json.dumps({"queries": answers, "builds": builds}))


if __name__ == "__main__":
    main()
