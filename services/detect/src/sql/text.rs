//! From text to a syntax tree, with the place of everything in the file that it came from.

use crate::problem::{Finding, Position};
use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// Most tokens of one expression. Trees are walked recursively, and `a AND b AND ...` grows one level a term.
const MAX_TOKENS: usize = 400;

/// Where the first character of a piece of SQL stands in its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub start: Position,
    /// Whether the piece stands in the file word for word. Where it does not (a string with escapes), no place within
    /// it can be named, and all are its start.
    pub verbatim: bool,
}

impl Origin {
    /// The beginning of the file.
    pub const START: Self = Self { start: Position { line: 1, column: 1 }, verbatim: true };

    /// The place in the file of a location in the piece; none for the parser's location 0.
    pub fn place(self, location: Location) -> Option<Position> {
        let start = self.start;
        match location.line {
            0 => None,
            _ if !self.verbatim => Some(start),
            1 => Some(Position { line: start.line, column: start.column + location.column.saturating_sub(1) }),
            line => Some(Position { line: start.line + line - 1, column: location.column }),
        }
    }
}

/// Cuts SQL into tokens; white space and comments are tokens too.
pub(crate) fn tokens(text: &str, origin: Origin) -> Result<Vec<TokenWithSpan>, Finding> {
    Tokenizer::new(&GenericDialect {}, text)
        .tokenize_with_location()
        .map_err(|error| Finding::at(origin.place(error.location), error.message))
}

/// Parses one expression that takes all of `tokens`.
pub(crate) fn parse(tokens: &[TokenWithSpan], origin: Origin) -> Result<Expr, Finding> {
    let meaningful = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_)));
    let first = meaningful.clone().next().and_then(|token| origin.place(token.span.start));
    let end = meaningful.clone().next_back().and_then(|token| origin.place(token.span.end));
    if meaningful.count() > MAX_TOKENS {
        return Err(Finding::at(first, "the expression is too long").allowing(format!("{MAX_TOKENS} tokens")));
    }
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens.to_vec());
    let expr = parser.parse_expr().map_err(|error| syntax_error(error, origin, first, end))?;
    let rest = parser.peek_token();
    if rest.token == Token::EOF {
        Ok(expr)
    } else {
        let message = format!("the expression ends before `{}`", rest.token);
        Err(Finding::at(origin.place(rest.span.start), message).allowing("one expression"))
    }
}

/// The parser puts the place at the end of its message.
fn syntax_error(error: ParserError, origin: Origin, first: Option<Position>, end: Option<Position>) -> Finding {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => return Finding::at(first, "the expression is nested too deeply"),
    };
    let located = message.rsplit_once(" at Line: ").and_then(|(message, place)| {
        let (line, column) = place.split_once(", Column: ")?;
        Some((message, Location { line: line.parse().ok()?, column: column.parse().ok()? }))
    });
    match located {
        Some((message, location)) => Finding::at(origin.place(location).or(end), message),
        None => Finding::at(end, message.replace("EOF", "the end")),
    }
}
