//! `COLUMNS.md` is made from the tables' own descriptions, and says what they say.
//!
//! After a change of theirs write it anew: `TIDEGATE_WRITE_COLUMNS=1 cargo test -p tidegate-history --test history`.

use std::fmt::Write as _;
use std::path::Path;
use tidegate_history::{DATE, Table, View};

const HEAD: &str = "\
# Tables and columns

Made from the tables' own descriptions, which stand in the tables as comments, too. Times are UTC, in microseconds; every
column may be NULL: what is not known, or does not apply. Delta Lake has no unsigned numbers: hashes are the same 64 bits
as a `bigint`, which may be negative. All tables are partitioned by `date`, and within a file the rows are sorted as it is
said of each table.

";

#[test]
fn the_list_is_that_of_the_tables() {
    let list = list();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("COLUMNS.md");
    if std::env::var_os("TIDEGATE_WRITE_COLUMNS").is_some() {
        std::fs::write(&path, &list).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == list, "COLUMNS.md is not what the tables say: write it anew with TIDEGATE_WRITE_COLUMNS=1");
}

fn list() -> String {
    let mut text = HEAD.to_owned();
    for table in Table::ALL {
        let topic = match table.topic() {
            Some(topic) => format!("From the topic `{}`.", topic.suffix()),
            None => "From all topics.".to_owned(),
        };
        let [first, second] = table.order();
        let _ = writeln!(text, "## {}\n\n{} {topic}", table.name(), table.meaning());
        let _ = writeln!(text, "Partitioned by `{DATE}`, sorted by `{first}` and `{second}`.\n");
        text.push_str("| column | type | |\n|---|---|---|\n");
        for column in table.columns() {
            let meaning = column.meaning.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {} | {meaning} |", column.name, column.kind.sql_name());
        }
        text.push('\n');
    }
    text.push_str(
        "## Views\n\nOnly over Flight SQL; as plain SQL they stand in `src/query/views`.\n\n| view | |\n|---|---|\n",
    );
    for view in View::ALL {
        let _ = writeln!(text, "| `{}` | {} |", view.name, view.meaning);
    }
    text
}
