//! What clients ask of the server itself: what it can, which types it has, which tables there are.

use crate::query::{CATALOG, Catalog, SCHEMA};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity, XdbcDataType};
use std::sync::{Arc, LazyLock};
use tidegate_access::Scope;

/// What the server is and can.
pub(super) fn sql_info() -> &'static SqlInfoData {
    static INFO: LazyLock<SqlInfoData> = LazyLock::new(|| {
        let mut info = SqlInfoDataBuilder::new();
        info.append(SqlInfo::FlightSqlServerName, "Tidegate history");
        info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
        info.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
        info.append(SqlInfo::FlightSqlServerReadOnly, true);
        info.append(SqlInfo::FlightSqlServerSql, true);
        info.append(SqlInfo::FlightSqlServerSubstrait, false);
        info.append(SqlInfo::FlightSqlServerTransaction, 0_i32);
        info.append(SqlInfo::FlightSqlServerCancel, true);
        info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
        info.append(SqlInfo::SqlDdlCatalog, false);
        info.append(SqlInfo::SqlDdlSchema, false);
        info.append(SqlInfo::SqlDdlTable, false);
        let lower_case = SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32;
        info.append(SqlInfo::SqlIdentifierCase, lower_case);
        info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
        info.append(
            SqlInfo::SqlQuotedIdentifierCase,
            SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
        );
        info.append(SqlInfo::SqlAllTablesAreSelectable, true);
        info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i32);
        #[allow(clippy::unwrap_used, reason = "what is appended is known, and built in a test")]
        info.build().unwrap()
    });
    &INFO
}

/// The types that columns have.
pub(super) fn types() -> &'static XdbcTypeInfoData {
    static TYPES: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
        let mut types = XdbcTypeInfoDataBuilder::new();
        for (name, kind, size, quote) in [
            ("BOOLEAN", XdbcDataType::XdbcBit, Some(1), None),
            ("INTEGER", XdbcDataType::XdbcInteger, Some(32), None),
            ("BIGINT", XdbcDataType::XdbcBigint, Some(64), None),
            ("DOUBLE", XdbcDataType::XdbcDouble, Some(53), None),
            ("VARCHAR", XdbcDataType::XdbcVarchar, None, Some("'")),
            ("VARBINARY", XdbcDataType::XdbcVarbinary, None, Some("X'")),
            ("DATE", XdbcDataType::XdbcDate, Some(10), Some("'")),
            ("TIMESTAMP", XdbcDataType::XdbcTimestamp, Some(32), Some("'")),
        ] {
            types.append(XdbcTypeInfo {
                type_name: name.to_owned(),
                data_type: kind,
                column_size: size,
                literal_prefix: quote.map(str::to_owned),
                literal_suffix: quote.map(|_| "'".to_owned()),
                create_params: None,
                nullable: Nullable::NullabilityNullable,
                case_sensitive: name == "VARCHAR",
                searchable: Searchable::Full,
                unsigned_attribute: Some(false),
                fixed_prec_scale: false,
                auto_increment: Some(false),
                local_type_name: Some(name.to_owned()),
                minimum_scale: None,
                maximum_scale: None,
                sql_data_type: kind,
                datetime_subcode: None,
                num_prec_radix: size.filter(|_| quote.is_none()).map(|_| 2),
                interval_precision: None,
            });
        }
        #[allow(clippy::unwrap_used, reason = "what is appended is known, and built in a test")]
        types.build().unwrap()
    });
    &TYPES
}

/// The tables and views, with their schemas where they can be had; for the other schema, the engine's own views.
pub(super) fn listed(scope: &Scope) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let own = Catalog::listed(scope).map(|(name, kind, _)| (SCHEMA, name, kind));
    let of_schema = ["columns", "df_settings", "parameters", "routines", "schemata", "tables", "views"];
    own.chain(of_schema.map(|name| ("information_schema", name, "VIEW")))
}

/// The schemas.
pub(super) const SCHEMAS: [&str; 2] = [SCHEMA, "information_schema"];
/// The only catalog.
pub(super) const ONLY_CATALOG: &str = CATALOG;

/// No table has a primary key: an empty answer.
pub(super) fn no_primary_keys() -> RecordBatch {
    RecordBatch::new_empty(PRIMARY_KEYS.clone())
}

/// No table names another: an empty answer.
pub(super) fn no_references() -> RecordBatch {
    RecordBatch::new_empty(REFERENCES.clone())
}

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

static REFERENCES: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_built() {
        assert!(sql_info().record_batch([]).unwrap().num_rows() > 10);
        assert_eq!(types().record_batch(None).unwrap().num_rows(), 8);
        assert_eq!(no_primary_keys().num_columns(), 6);
        assert_eq!(no_references().num_columns(), 13);
    }

    #[test]
    fn who_is_limited_to_domains_is_not_told_of_what_has_none() {
        let names = |scope: &Scope| listed(scope).map(|(_, name, _)| name).collect::<Vec<_>>();
        assert!(names(&Scope::all()).contains(&"rejected"));
        assert!(!names(&Scope::domains(["example.org"])).contains(&"rejected"));
    }
}
