//! Wrong values are refused, and what is said names the value and what is allowed.

use crate::data;
use std::fs;
use tidegate_tests::chart;

#[test]
fn wrong_values_are_refused_with_what_is_wrong() {
    let cases = chart::cases(&data("wrong")).unwrap();
    assert!(cases.len() > 15);
    for (case, result) in cases.iter().zip(chart::render_all(&cases).unwrap()) {
        let Err(error) = result else { panic!("{} is taken", case.name) };
        let text = fs::read_to_string(&case.file).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# expect: ")).collect();
        assert!(!expected.is_empty(), "{} says not what to expect", case.name);
        for line in expected {
            assert!(error.contains(line), "{}: {line:?} is missing in\n{error}", case.name);
        }
    }
}
