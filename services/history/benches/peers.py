"""The questions of `tidegate bench history`, asked of DuckDB and Polars on the same files.

    tidegate bench history --tables /var/tmp/history
    pip install duckdb polars deltalake pyarrow
    python services/history/benches/peers.py /var/tmp/history [THREADS]
"""
import os
import statistics
import sys
import time

TIMES = 3
THREADS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
os.environ["POLARS_MAX_THREADS"] = str(THREADS)

import deltalake  # noqa: E402
import duckdb  # noqa: E402
import polars as pl  # noqa: E402

ACCOUNT, DAY = "user1000@example.org", "2026-10-15"

QUESTIONS = {
    "one account's month": f"""
        SELECT date, count(*) AS messages, sum(recipients) AS recipients, count(DISTINCT client_address) AS addresses
        FROM events WHERE account = '{ACCOUNT}' GROUP BY date ORDER BY date""",
    "top senders of a day": f"""
        SELECT account, count(*) AS messages, sum(recipients) AS recipients FROM events WHERE date = DATE '{DAY}'
        GROUP BY account ORDER BY messages DESC LIMIT 20""",
    "who else sent from an account's addresses": f"""
        SELECT account, count(*) AS messages FROM events WHERE account <> '{ACCOUNT}' AND client_address IN
        (SELECT client_address FROM events WHERE account = '{ACCOUNT}')
        GROUP BY account ORDER BY messages DESC LIMIT 20""",
    "recipients' domains of each account": """
        SELECT account, count(DISTINCT domain_to) AS domains FROM
        (SELECT account, unnest(recipient_domains) AS domain_to FROM events) AS each_one
        GROUP BY account ORDER BY domains DESC LIMIT 20""",
    "all rows": """
        SELECT count(*), sum(size_bytes), avg(recipients), count(DISTINCT node), max(time) FROM events""",
}


def timed(name, engine, ask):
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        try:
            ask()
        except Exception as error:  # An engine that cannot answer is told so.
            print(f"{engine:8} {name:45} cannot: {str(error).splitlines()[0][:100]}")
            return
        seconds.append(time.perf_counter() - began)
    print(f"{engine:8} {name:45} {statistics.median(seconds):8.3f} s")


def main():
    table = os.path.join(sys.argv[1], "events")
    files = [uri.removeprefix("file://") for uri in deltalake.DeltaTable(table).file_uris()]
    print(f"duckdb {duckdb.__version__}, polars {pl.__version__}, {THREADS} threads, {len(files)} files")
    duck = duckdb.connect(config={"threads": THREADS})
    duck.execute(f"CREATE VIEW events AS SELECT * FROM read_parquet({files!r}, hive_partitioning = true)")
    for name, sql in QUESTIONS.items():
        timed(name, "duckdb", lambda: duck.execute(sql).fetchall())
    events = pl.scan_parquet(files, hive_partitioning=True)
    context = pl.SQLContext(events=events)
    for name, sql in QUESTIONS.items():
        timed(name, "polars", lambda: context.execute(sql).collect(engine="streaming"))


if __name__ == "__main__":
    main()
