//! Parameters of statements: `?`, as JDBC and its like write them, and `$1`, as the engine does.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::fmt::Write as _;

/// The statement with each `?` numbered in its order. Without one it is given back as it came, so that positions in
/// errors stay those of the client's text; likewise when it cannot be taken apart, which its parser then says.
pub(crate) fn numbered(sql: &str) -> String {
    let dialect = GenericDialect {};
    let Ok(tokens) = Tokenizer::new(&dialect, sql).tokenize() else { return sql.to_owned() };
    let is_open = |token: &Token| matches!(token, Token::Placeholder(name) if name == "?") || *token == Token::Question;
    if !tokens.iter().any(is_open) {
        return sql.to_owned();
    }
    let mut count = 0;
    let mut numbered = String::with_capacity(sql.len() + 8);
    for token in &tokens {
        if is_open(token) {
            count += 1;
            // A string takes whatever is written to it.
            let _ = write!(numbered, "${count}");
        } else {
            numbered.push_str(&token.to_string());
        }
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_are_numbered_but_not_in_texts() {
        let sql = "SELECT '?', \"a?\", -- ?\n x FROM t WHERE a = ? AND b IN (?, $7)";
        let expected = "SELECT '?', \"a?\", -- ?\n x FROM t WHERE a = $1 AND b IN ($2, $7)";
        assert_eq!(numbered(sql), expected);
        assert_eq!(numbered("SELECT $1 , 'it''s'"), "SELECT $1 , 'it''s'");
        assert_eq!(numbered("SELECT 'open"), "SELECT 'open");
    }
}
