#!/usr/bin/env python3
"""Reads Tidegate's history with Spark: spark-submit --packages io.delta:delta-spark_4.2_2.13:4.4.0 spark.py TABLES"""

import sys

from pyspark.sql import SparkSession

LOCKS = """
    SELECT begun.account, begun.lock_id, coalesce(begun.rule, begun.actor) AS because, ended.change AS ended
    FROM account_changes AS begun
    LEFT JOIN account_changes AS ended ON ended.account = begun.account AND ended.lock_id = begun.lock_id
         AND ended.change IN ('unlocked', 'expired')
    WHERE begun.change = 'locked' ORDER BY begun.time
"""


def main(tables: str) -> None:
    # Beside these two, a store needs its Hadoop file system: for S3 also --packages org.apache.hadoop:hadoop-aws:VERSION.
    spark = (
        SparkSession.builder.appName("tidegate-history")
        .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
        .config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    for name in ["events", "account_changes", "audit", "rejected"]:
        frame = spark.read.format("delta").load(f"{tables.rstrip('/')}/{name}")
        frame.createOrReplaceTempView(name)
        print("rows", name, frame.count())
    events = spark.table("events")
    print("comment", next(field.metadata["comment"] for field in events.schema if field.name == "client_address"))
    for row in spark.sql("SELECT account, count(*) FROM events WHERE is_message GROUP BY 1 ORDER BY 1").collect():
        print("messages", *row)
    # Only the files of this day are read.
    today = events.where("date = current_date()")
    print("today", today.count(), "in", len(today.inputFiles()), "files")
    for row in spark.sql(LOCKS).collect():
        print("lock", *row)
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])
