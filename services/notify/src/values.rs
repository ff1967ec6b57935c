//! Values as people may see them: on one line, bounded, without characters that turn what is read around.

pub(crate) const DAY_MS: i64 = 86_400_000;

/// The text on one line: control characters become spaces, marks that change the direction of what follows are left
/// out, and what is longer than `characters` is cut.
pub(crate) fn one_line(text: &str, characters: usize) -> String {
    let visible = text.chars().filter(|character| !turns_text(*character));
    let mut line = String::new();
    for (index, character) in visible.enumerate() {
        if index == characters {
            line.push('…');
            break;
        }
        let breaks = character.is_control() || matches!(character, '\u{2028}' | '\u{2029}');
        line.push(if breaks { ' ' } else { character });
    }
    line.trim().to_owned()
}

/// Marks that let text be shown in another order than it is, and ones that are not seen at all.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A moment in UTC, as a template says: `%Y %m %d %H %M %S` stand for its parts.
pub(crate) fn moment(time_ms: i64, format: &str) -> String {
    let seconds = time_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = date_of(days);
    let parts = [
        ("%Y", format!("{year:04}")),
        ("%m", format!("{month:02}")),
        ("%d", format!("{day:02}")),
        ("%H", format!("{:02}", second / 3600)),
        ("%M", format!("{:02}", second / 60 % 60)),
        ("%S", format!("{:02}", second % 60)),
    ];
    parts.iter().fold(format.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// A moment as RFC 3339 has it.
pub(crate) fn rfc3339(time_ms: i64) -> String {
    moment(time_ms, "%Y-%m-%dT%H:%M:%S") + &format!(".{:03}Z", time_ms.rem_euclid(1000))
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_on_its_line() {
        assert_eq!(one_line("a\r\nBcc: x@y.test\u{2028}b\0c", 100), "a  Bcc: x@y.test b c");
        assert_eq!(one_line("\u{202e}gpj.exe\u{200b}", 100), "gpj.exe");
        assert_eq!(one_line("雪雪雪雪", 3), "雪雪雪…");
        assert_eq!(one_line("雪雪雪", 3), "雪雪雪");
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(moment(1_795_644_475_000, "%d.%m.%Y %H:%M"), "25.11.2026 22:07");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }
}
