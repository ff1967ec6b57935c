//! What clients ask about what there is: types, catalogs, schemas, tables and their columns.

use crate::query::{CATALOG, Catalog, SCHEMA};
use crate::tables::Table;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use tidegate_access::Scope;

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

/// The columns of a table or view, as tools show them: each with its place, and with what it means where that is known.
pub(super) fn described(schema: &Schema, schema_name: &str, name: &str) -> Schema {
    let columns = Table::named(name).filter(|_| schema_name == SCHEMA).map(Table::columns).unwrap_or_default();
    let fields = schema.fields().iter().map(|field| {
        let mut told = HashMap::from(
            [("CATALOG_NAME", CATALOG), ("SCHEMA_NAME", schema_name), ("TABLE_NAME", name), ("IS_READ_ONLY", "1")]
                .map(|(key, value)| (format!("{COLUMN_METADATA}{key}"), value.to_owned())),
        );
        if let Some(column) = columns.iter().find(|column| column.name == field.name()) {
            told.insert(format!("{COLUMN_METADATA}REMARKS"), column.meaning.to_owned());
            told.insert(format!("{COLUMN_METADATA}TYPE_NAME"), column.kind.sql_name().to_owned());
        }
        field.as_ref().clone().with_metadata(told)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// What keys of a column's metadata begin with (Flight SQL's `FlightSqlColumnMetadata`).
const COLUMN_METADATA: &str = "ARROW:FLIGHT:SQL:";

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
