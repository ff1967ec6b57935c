#!/usr/bin/env python3
"""Reads Tidegate's history from its Delta Lake tables themselves, without any service: deltalake, pandas, Polars, DuckDB."""

import argparse
import sys

import deltalake
import polars

TABLES = ["events", "account_changes", "audit", "rejected"]


def main() -> int:
    arguments = parse_arguments()
    arguments.run(arguments)
    return 0


def describe(arguments) -> None:
    """Each table: what it is, what it asks of readers, how much is in it; and its columns with what they mean."""
    for name in TABLES:
        table = opened(arguments, name)
        protocol, files = table.protocol(), table.file_uris()
        print(f"{name}: {table.metadata().description}")
        print(f"  version {table.version()}, reader {protocol.min_reader_version}, writer {protocol.min_writer_version}, "
              f"features {protocol.reader_features or []}, {len(files)} files, {table.count()} rows")
        for field in table.schema().fields:
            print(f"  {field.name}  {type_name(field.type)}  {field.metadata['comment']}")


def messages(arguments) -> None:
    """Messages of each account, read three ways; days and accounts that are not asked for are not even read."""
    table = opened(arguments, "events")
    lazy = polars.scan_delta(table).filter(polars.col("is_message"))
    counted = lazy.group_by("account").agg(polars.len().alias("messages")).sort("account").collect()
    print("polars", *counted.rows())
    frame = table.to_pandas(columns=["account", "queue_id"], filters=[("is_message", "=", True)])
    print("pandas", *frame.groupby("account").queue_id.nunique().items())
    if arguments.duckdb:
        import duckdb

        # The files that the log names: those of a folder may be more, since replaced ones stay for a day.
        sql = "SELECT account, count(*) FROM read_parquet(?, hive_partitioning = true) WHERE is_message GROUP BY 1 ORDER BY 1"
        print("duckdb", *duckdb.execute(sql, [table.file_uris()]).fetchall())


def locks(arguments) -> None:
    """Who was locked, by whom or what, and until when."""
    changes = polars.scan_delta(opened(arguments, "account_changes"))
    begun = changes.filter(polars.col("change") == "locked").select("account", "lock_id", "time", "rule", "actor")
    ended = changes.filter(polars.col("change").is_in(["unlocked", "expired"])).select("lock_id", ended="time")
    for row in begun.join(ended, on="lock_id", how="left").sort("time").collect().iter_rows(named=True):
        print(row["lock_id"], row["account"], row["rule"] or row["actor"], row["ended"] or "in force")


def log(arguments) -> None:
    """What was committed to the events: the newest commits, the files, and up to where each partition was read."""
    table = opened(arguments, "events")
    for commit in table.history(5):
        print("commit", commit["version"], commit["operation"])
    for file in polars.DataFrame(table.get_add_actions(flatten=True)).iter_rows(named=True):
        print("file", file["partition.date"], file["num_records"], file["min.account"], file["max.account"])
    for app in arguments.app:
        print("position", app, table.transaction_version(app))


def type_name(kind) -> str:
    return f"array<{type_name(kind.element_type)}>" if isinstance(kind, deltalake.schema.ArrayType) else kind.type


def opened(arguments, name: str) -> deltalake.DeltaTable:
    options = dict(option.split("=", 1) for option in arguments.option)
    return deltalake.DeltaTable(f"{arguments.tables.rstrip('/')}/{name}", storage_options=options or None)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", help="where the tables are: history.url, a directory or s3://..., gs://..., az://...")
    parser.add_argument("--option", action="append", default=[], help="NAME=VALUE for the store, e.g. aws_region=...")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("describe", help=describe.__doc__).set_defaults(run=describe)
    count = commands.add_parser("messages", help=messages.__doc__)
    count.add_argument("--duckdb", action="store_true", help="with DuckDB, too, which is to be installed")
    count.set_defaults(run=messages)
    commands.add_parser("locks", help=locks.__doc__).set_defaults(run=locks)
    commits = commands.add_parser("log", help=log.__doc__)
    commits.add_argument("--app", action="append", default=[], help="an application whose position is shown")
    commits.set_defaults(run=log)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
