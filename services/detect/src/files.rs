//! A statistics file and the rules file over it, checked together.

use crate::problem::Problem;
use crate::rules::Rules;
use crate::statistics::Statistics;

/// A file's text, and what problems call the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is in it.
    pub text: &'a str,
}

/// Reads both files.
///
/// # Errors
/// All problems of both at once. Rules over statistics that have problems of their own are checked too.
pub fn parse_files(statistics: Source<'_>, rules: Source<'_>) -> Result<(Statistics, Rules), Vec<Problem>> {
    let parse_rules = |statistics: &Statistics| Rules::parse(rules.name, rules.text, statistics);
    match Statistics::parse(statistics.name, statistics.text) {
        Ok(statistics) => parse_rules(&statistics).map(|rules| (statistics, rules)),
        Err(mut problems) => {
            let found = Statistics::stand_ins(statistics.text).map(|stand_ins| parse_rules(&stand_ins));
            if let Some(Err(more)) = found {
                problems.extend(more);
            }
            Err(problems)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(statistics: &str, rules: &str) -> Vec<String> {
        let source = |name, text| Source { name, text };
        let found = parse_files(source("s.sql", statistics), source("r.toml", rules)).unwrap_err();
        found.iter().map(ToString::to_string).collect()
    }

    fn rule(when: &str) -> String {
        format!("[[rule]]\nname = 'a'\nwhen = '{when}'\naction = 'observe'\nreason = 'r'\nsource = 's'\n")
    }

    #[test]
    fn problems_of_both_files_are_told_at_once() {
        let found = problems("messages = count(*);\nbad = count(no_column);\n", &rule("mesages_1h > 5"));
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with("s.sql:2:") && found[0].contains("no_column"), "{found:#?}");
        assert!(found[1].starts_with("r.toml:3:") && found[1].contains("mesages_1h"), "{found:#?}");
    }

    #[test]
    fn a_statistic_with_a_problem_is_still_known_to_rules() {
        for bad in ["bad = count(no_column);", "bad = count(;", "bad = 5;"] {
            let found = problems(bad, &rule("bad_1h > 5"));
            assert_eq!(found.len(), 1, "{bad}: {found:#?}");
        }
    }
}
