//! The time: as milliseconds since 1970 UTC, as text, and as people type it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in milliseconds since 1970 UTC.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-25T13:45:07Z`; none when no calendar has it.
pub(crate) fn machine(at_ms: i64) -> Option<String> {
    // The end of the year 9999, beyond which there is no such text.
    let ms = u64::try_from(at_ms).ok().filter(|ms| *ms < 253_402_300_800_000)?;
    Some(humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(ms)).to_string())
}

/// `2026-11-25 13:45:07`, which is UTC.
pub(crate) fn human(at_ms: i64) -> String {
    match machine(at_ms) {
        Some(text) => text.replace('T', " ").trim_end_matches('Z').to_owned(),
        None => "unknown".to_owned(),
    }
}

/// `11-25`: month and day.
pub(crate) fn day(at_ms: i64) -> String {
    machine(at_ms).map_or_else(String::new, |text| text[5..10].to_owned())
}

/// `13:45`: hour and minute.
pub(crate) fn minute(at_ms: i64) -> String {
    machine(at_ms).map_or_else(String::new, |text| text[11..16].to_owned())
}

/// `3 min ago`, `in 2 h`, `just now`. Coarse, so that a page does not change with every second.
pub(crate) fn relative(at_ms: i64, now_ms: i64) -> String {
    let apart = span(at_ms.saturating_sub(now_ms).saturating_abs());
    match (at_ms <= now_ms, apart.as_str()) {
        (_, "0 min") => "just now".to_owned(),
        (true, apart) => format!("{apart} ago"),
        (false, apart) => format!("in {apart}"),
    }
}

/// `3 min`, `2 h`, `5 d`.
pub(crate) fn span(ms: i64) -> String {
    let minutes = ms / 60_000;
    match minutes {
        0..=119 => format!("{minutes} min"),
        120..=2_879 => format!("{} h", minutes / 60),
        _ => format!("{} d", minutes / (24 * 60)),
    }
}

/// What a field of the kind `datetime-local` says (`2026-11-25T13:45`, with or without seconds), taken as UTC.
///
/// # Errors
/// A sentence for who typed it.
pub(crate) fn parse(text: &str) -> Result<i64, String> {
    let text = text.trim().trim_end_matches('Z');
    let whole = if text.len() == 16 { format!("{text}:00Z") } else { format!("{text}Z") };
    let time = humantime::parse_rfc3339_weak(&whole)
        .map_err(|_| format!("{text:?} is no time; allowed: like 2026-11-25T13:45, in UTC"))?;
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| format!("{text:?} is before 1970"))?;
    Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MS: i64 = 1_795_614_307_000;

    #[test]
    fn a_time_is_written_and_read_in_utc() {
        assert_eq!(machine(AT_MS).unwrap(), "2026-11-25T13:45:07Z");
        assert_eq!(human(AT_MS), "2026-11-25 13:45:07");
        assert_eq!((day(AT_MS).as_str(), minute(AT_MS).as_str()), ("11-25", "13:45"));
        assert_eq!(parse("2026-11-25T13:45:07"), Ok(AT_MS));
        assert_eq!(parse(" 2026-11-25T13:45 "), Ok(AT_MS - 7_000));
        assert!(parse("yesterday").unwrap_err().contains("\"yesterday\" is no time"));
        assert!(parse("ü").is_err());
        assert_eq!(human(-1), "unknown");
        assert_eq!(human(i64::MAX), "unknown");
    }

    #[test]
    fn a_time_is_told_as_people_say_it() {
        let told = |apart_ms: i64| relative(AT_MS + apart_ms, AT_MS);
        assert_eq!(told(0), "just now");
        assert_eq!(told(-59_000), "just now");
        assert_eq!(told(-60_000), "1 min ago");
        assert_eq!(told(-7_200_000), "2 h ago");
        assert_eq!(told(3 * 86_400_000), "in 3 d");
        assert_eq!(relative(i64::MIN, i64::MAX), "106751991167 d ago");
    }
}
