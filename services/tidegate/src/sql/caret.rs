//! Shows where in a statement the server found a mistake.

/// Characters of a line that are shown around the mistake.
const SHOWN: usize = 100;

/// What the server says about `sql`, and below it the line with a caret under the place, when it tells one.
pub fn explain(sql: &str, message: &str) -> String {
    let Some((message, line, column)) = place(message) else { return message.to_owned() };
    let Some(text) = line.checked_sub(1).and_then(|above| sql.lines().nth(above)) else { return message };
    let letters: Vec<char> = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    // A mistake at the end is behind the last letter.
    let at = column.saturating_sub(1).min(letters.len());
    let begin = if letters.len() <= SHOWN { 0 } else { at.saturating_sub(SHOWN / 2).min(letters.len() - SHOWN) };
    let end = letters.len().min(begin + SHOWN);
    let (left, right) = (if begin > 0 { "..." } else { "" }, if end < letters.len() { "..." } else { "" });
    let head = format!("LINE {line}: {left}");
    let shown: String = letters[begin..end].iter().collect();
    let caret = head.chars().count() + at - begin;
    format!("{message}\n{head}{shown}{right}\n{:caret$}^", "")
}

/// The message without the place, and the line and column, from 1.
fn place(message: &str) -> Option<(String, usize, usize)> {
    const LINE: &str = " at Line: ";
    let begin = message.rfind(LINE)?;
    let (line, rest) = message[begin + LINE.len()..].split_once(", Column: ")?;
    let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (column, after) = rest.split_at(digits);
    Some((format!("{}{after}", &message[..begin]), line.parse().ok()?, column.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        let told = explain("SELECT 1\n\tFORM events", "the SQL is wrong: found: FORM at Line: 2, Column: 2");
        assert_eq!(told, "the SQL is wrong: found: FORM\nLINE 2:  FORM events\n         ^");
        let told = explain("SELECT", "unexpected end at Line: 1, Column: 7 (EOF)");
        assert_eq!(told, "unexpected end (EOF)\nLINE 1: SELECT\n              ^");
    }

    #[test]
    fn without_a_place_the_message_stands_alone() {
        for message in ["no field named x", "a at Line: x, Column: 1", "a at Line: 1", "a at Line: 1, Column: "] {
            assert_eq!(explain("SELECT x", message), message);
        }
        // A line that is not there.
        assert_eq!(explain("SELECT x", "odd at Line: 7, Column: 1"), "odd");
        assert_eq!(explain("SELECT x", "odd at Line: 0, Column: 1"), "odd");
    }

    #[test]
    fn of_a_long_line_only_the_part_around_is_shown() {
        let sql = format!("SELECT {} FORM {}", "a, ".repeat(100), "b, ".repeat(100));
        let column = sql.find("FORM").unwrap() + 1;
        let told = explain(&sql, &format!("wrong at Line: 1, Column: {column}"));
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[1].len() < 130 && lines[1].starts_with("LINE 1: ...") && lines[1].ends_with("..."), "{told}");
        assert_eq!(lines[1].find("FORM"), lines[2].find('^'), "{told}");
    }
}
