#!/usr/bin/env python3
"""Asks Tidegate's history over Arrow Flight SQL, through ADBC: answers come as pandas or Polars frames."""

import argparse
import sys
import threading
import warnings

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
from adbc_driver_flightsql import DatabaseOptions


def main() -> int:
    arguments = parse_arguments()
    try:
        with connect(arguments) as connection:
            arguments.run(connection, arguments)
    except (adbc_driver_manager.Error, OSError) as error:
        # Of rows that are on their way Arrow itself tells that there will be no more, as an OSError.
        print(error, file=sys.stderr)
        return 1
    return 0


def connect(arguments):
    """A connection with a token: as a bearer header, or as the password of any name, as tools for databases have it."""
    options = {}
    if arguments.ca:
        with open(arguments.ca, encoding="utf-8") as file:
            options[DatabaseOptions.TLS_ROOT_CERTS.value] = file.read()
    if arguments.token_file:
        with open(arguments.token_file, encoding="utf-8") as file:
            token = file.read().strip()
        if arguments.user:
            options |= {"username": arguments.user, "password": token}
        else:
            options[DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {token}"
    # There are no transactions to be left by hand: the history is read-only.
    warnings.filterwarnings("ignore", message="Cannot disable autocommit")
    scheme = "grpc+tls" if arguments.ca else "grpc"
    return adbc_driver_flightsql.dbapi.connect(f"{scheme}://{arguments.server}", db_kwargs=options)


def query(connection, arguments) -> None:
    """One query; with parameters it is prepared, and each ? gets the next."""
    with connection.cursor() as cursor:
        cursor.execute(arguments.sql, [value(text) for text in arguments.parameter] or None)
        if arguments.frames == "pandas":
            print(cursor.fetch_df().to_csv(index=False), end="")
        else:
            print(cursor.fetch_polars().write_csv(), end="")


def prepared(connection, arguments) -> None:
    """One statement, prepared once, and run for each parameter."""
    with connection.cursor() as cursor:
        schema = cursor.adbc_prepare(arguments.sql)
        print("parameters:", ", ".join(f"{field.name} {field.type}" for field in schema))
        for text in arguments.parameter:
            cursor.execute(arguments.sql, [value(text)])
            print(text, *cursor.fetchone())


def tables(connection, _) -> None:
    """What there is: the server, catalogs, schemas, tables and views with their columns."""
    info = connection.adbc_get_info()
    print(info["vendor_name"], info["vendor_version"])
    for catalog in connection.adbc_get_objects(depth="columns", db_schema_filter="history").read_all().to_pylist():
        for schema in catalog["catalog_db_schemas"]:
            for table in schema["db_schema_tables"]:
                columns = ", ".join(column["column_name"] for column in table["table_columns"])
                print(catalog["catalog_name"], schema["db_schema_name"], table["table_name"], table["table_type"], columns)


def schema(connection, arguments) -> None:
    """The columns of one table: their Arrow types, and what they mean."""
    for field in connection.adbc_get_table_schema(arguments.table, db_schema_filter="history"):
        meaning = (field.metadata or {}).get(b"ARROW:FLIGHT:SQL:REMARKS", b"").decode()
        print(field.name, field.type, meaning)


def cancel(connection, arguments) -> None:
    """Begins a query, and cancels it as soon as its first rows are there."""
    with connection.cursor() as cursor:
        cursor.execute(arguments.sql)
        rows = cursor.fetch_record_batch()
        first = rows.read_next_batch().num_rows
        # From another thread, as a person would who presses a button.
        canceller = threading.Thread(target=cursor.adbc_cancel)
        canceller.start()
        try:
            total = first + sum(batch.num_rows for batch in rows)
        finally:
            canceller.join()
        print("not cancelled:", total, "rows")


def value(text: str):
    """A whole number as a number, everything else as text."""
    return int(text) if text.lstrip("-").isdigit() else text


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="127.0.0.1:7730", help="the history's address (%(default)s)")
    parser.add_argument("--ca", help="PEM file with the authority of its certificate; without it: no TLS")
    parser.add_argument("--token-file", help="file with your token")
    parser.add_argument("--user", help="give the token as the password of this name, not as a bearer token")
    commands = parser.add_subparsers(required=True)
    ask = commands.add_parser("query", help=query.__doc__)
    ask.add_argument("--frames", choices=["pandas", "polars"], default="pandas")
    ask.add_argument("sql")
    ask.add_argument("parameter", nargs="*")
    ask.set_defaults(run=query)
    prepare = commands.add_parser("prepared", help=prepared.__doc__)
    prepare.add_argument("sql")
    prepare.add_argument("parameter", nargs="+")
    prepare.set_defaults(run=prepared)
    commands.add_parser("tables", help=tables.__doc__).set_defaults(run=tables)
    one = commands.add_parser("schema", help=schema.__doc__)
    one.add_argument("table")
    one.set_defaults(run=schema)
    stop = commands.add_parser("cancel", help=cancel.__doc__)
    stop.add_argument("sql")
    stop.set_defaults(run=cancel)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
