//! What tables and views there are, and what their columns mean.

use super::query::Failure;
use crate::admin::format;
use crate::history::cells::text;
use crate::history::client::{HistoryClient, identifier};
use arrow::datatypes::DataType;
use comfy_table::ContentArrangement;
use tidegate_history::{Table, View};

/// The schema of the history's own tables and views.
pub const SCHEMA: &str = "history";

/// The tables and views that are there for who asks, and what they tell.
///
/// # Errors
/// When the history cannot be asked.
pub async fn tables(client: &HistoryClient, width: Option<u16>) -> Result<String, Failure> {
    let sql = format!(
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = '{SCHEMA}' ORDER BY 2, 1"
    );
    let batches = client.ask(&sql).await.map_err(|error| Failure::of(error, &sql))?;
    let mut rows = Vec::new();
    for batch in &batches {
        for row in 0..batch.num_rows() {
            let [name, kind] = [0, 1].map(|column| text(batch, column, row));
            let (name, kind) = (name?.unwrap_or_default(), kind?.unwrap_or_default());
            let meaning = meaning(&name).unwrap_or_default();
            let kind = if View::named(&name).is_some() || kind == "VIEW" { "view" } else { "table" };
            rows.push([name, kind.to_owned(), meaning.to_owned()]);
        }
    }
    Ok(in_columns(&["NAME", "IS A", "WHAT IT TELLS"], rows, width))
}

/// The columns of a table or view, their types and what they mean.
///
/// # Errors
/// When there is no such table, or the history cannot be asked.
pub async fn columns(client: &HistoryClient, name: &str, width: Option<u16>) -> Result<String, Failure> {
    let parts: Vec<String> = name.trim_matches('"').split('.').map(identifier).collect();
    let sql = format!("SELECT * FROM {}", parts.join("."));
    // Planning it tells its columns; it is not run. Nobody typed it, so no place in it is shown.
    let planned = client.plan(&sql).await.map_err(|error| Failure::of(error, ""))?;
    let known = Table::named(name).map_or(&[][..], Table::columns);
    let rows = planned.schema.fields().iter().map(|field| {
        let meaning = known.iter().find(|column| column.name == field.name()).map_or("", |column| column.meaning);
        [field.name().clone(), sql_type(field.data_type()), meaning.to_owned()]
    });
    let table = in_columns(&["COLUMN", "TYPE", "WHAT IT MEANS"], rows.collect(), width);
    let head = meaning(name).map(|meaning| format!("{name}: {meaning}\n")).unwrap_or_default();
    let query = View::named(name).map(|view| format!("\nIts query:\n{}", view.sql.trim_end())).unwrap_or_default();
    Ok(format!("{head}{table}{query}"))
}

/// What a table or view holds, as far as this program knows it.
fn meaning(name: &str) -> Option<&'static str> {
    Table::named(name).map(Table::meaning).or_else(|| View::named(name).map(|view| view.meaning))
}

fn in_columns(header: &[&str], rows: Vec<[String; 3]>, width: Option<u16>) -> String {
    let mut table = format::table(header);
    match width {
        Some(width) => table.set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.add_rows(rows);
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A type as SQL calls it.
fn sql_type(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::UInt64 => "bigint unsigned",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(..) => "timestamp",
        DataType::Duration(_) | DataType::Interval(_) => "interval",
        DataType::List(element) | DataType::LargeList(element) => {
            return format!("array<{}>", sql_type(element.data_type()));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_called_as_the_documentation_calls_them() {
        for table in Table::ALL {
            for (field, column) in table.arrow_schema().fields().iter().zip(table.columns()) {
                assert_eq!(sql_type(field.data_type()), column.kind.sql_name(), "{}.{}", table.name(), column.name);
            }
        }
    }

    #[test]
    fn every_table_and_view_tells_something() {
        let names = Table::ALL.map(Table::name).into_iter().chain(View::ALL.map(|view| view.name));
        for name in names {
            assert!(meaning(name).is_some_and(|meaning| meaning.ends_with('.')), "{name}");
        }
        assert_eq!(meaning("pg_class"), None);
    }
}
