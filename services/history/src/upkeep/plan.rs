//! Which files to put together: pure.

use std::collections::BTreeMap;

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileOf {
    /// Its path in the table.
    pub path: String,
    /// The day of its rows, as the log writes it: 2026-11-26.
    pub date: String,
    /// Octets.
    pub size: u64,
}

/// So many files of about one size are put together: each row is written anew once for each step of sizes.
const FAN: usize = 8;
/// The smallest step ends here, in octets.
const FIRST_STEP: u64 = 64 << 10;
/// Small files of a day that is over are put together, whatever their sizes, from so many on.
const LEFT_OVER: usize = 4;
/// Files that are put together at once, at most; more wait for the next round.
const MOST: usize = 256;

/// Groups of files that are to become one each. Files of `enough` octets and more stay as they are. Days before
/// `today` (in the log's form) are over.
pub(crate) fn merges(files: &[FileOf], enough: u64, today: &str) -> Vec<Vec<FileOf>> {
    let mut days: BTreeMap<&str, Vec<&FileOf>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.size < enough) {
        days.entry(&file.date).or_default().push(file);
    }
    let mut groups = Vec::new();
    for (day, files) in days {
        if day < today && files.len() >= LEFT_OVER {
            groups.push(files);
            continue;
        }
        let mut steps: BTreeMap<u32, Vec<&FileOf>> = BTreeMap::new();
        for file in files {
            steps.entry(step(file.size)).or_default().push(file);
        }
        groups.extend(steps.into_values().filter(|files| files.len() >= FAN));
    }
    groups.iter().map(|files| files.iter().take(MOST).map(|file| (*file).clone()).collect()).collect()
}

/// Sizes within a factor of [`FAN`] are of one step.
fn step(size: u64) -> u32 {
    let mut step = 0;
    let mut end = FIRST_STEP;
    while size >= end {
        end *= FAN as u64;
        step += 1;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENOUGH: u64 = 128 << 20;

    fn file(number: usize, date: &str, size: u64) -> FileOf {
        FileOf { path: format!("{date}/{number}"), date: date.to_owned(), size }
    }

    #[test]
    fn alike_ones_of_one_day_go_together() {
        let small: Vec<_> = (0..8).map(|number| file(number, "2026-11-26", 9_000)).collect();
        assert_eq!(merges(&small, ENOUGH, "2026-11-26"), std::slice::from_ref(&small));
        assert!(merges(&small[..7], ENOUGH, "2026-11-26").is_empty());
        assert_eq!(merges(&small[..4], ENOUGH, "2026-11-27").len(), 1, "the day is over");
        let large: Vec<_> = (0..20).map(|number| file(number, "2026-11-26", ENOUGH)).collect();
        assert!(merges(&large, ENOUGH, "2026-11-27").is_empty());
    }

    proptest! {
        /// However files come, a day ends with few, and each row was written anew a few times only.
        #[test]
        fn few_files_are_left_and_little_is_written_twice(sizes in prop::collection::vec(2_000_u64..200_000, 1..400)) {
            let mut files: Vec<FileOf> = Vec::new();
            let (mut written, mut next) = (0, 0);
            let came: u64 = sizes.iter().sum();
            for size in sizes {
                files.push(file(next, "2026-11-26", size));
                next += 1;
                for group in merges(&files, ENOUGH, "2026-11-26") {
                    let size = group.iter().map(|one| one.size).sum();
                    files.retain(|one| !group.contains(one));
                    files.push(file(next, "2026-11-26", size));
                    next += 1;
                    written += size;
                }
            }
            prop_assert_eq!(files.iter().map(|one| one.size).sum::<u64>(), came);
            prop_assert!(files.len() <= FAN * 6, "{} files", files.len());
            prop_assert!(written <= came * 6, "{} octets came and {} were written anew", came, written);
        }
    }
}
