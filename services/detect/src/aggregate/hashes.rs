//! Every value of a column as a hash that is the same on every machine and in every run.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use datafusion::common::{Result, exec_err};
use twox_hash::XxHash64;

/// Whether [`for_each`] takes a column of this type.
pub(super) fn is_hashable(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(element) => is_scalar(element.data_type()),
        scalar => is_scalar(scalar),
    }
}

fn is_scalar(data_type: &DataType) -> bool {
    matches!(data_type, DataType::UInt64 | DataType::Int64 | DataType::Float64 | DataType::Boolean | DataType::Utf8)
}

/// Calls `visit` with the row and hash of every value that is not NULL, where `filter` is true. Lists give one value
/// for each element.
pub(super) fn for_each(
    column: &ArrayRef,
    filter: Option<&BooleanArray>,
    mut visit: impl FnMut(usize, u64),
) -> Result<()> {
    let passes = |row: usize| filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
    let Some(list) = column.as_list_opt::<i32>() else {
        return for_each_scalar(column, |row, hash| {
            if passes(row) {
                visit(row, hash);
            }
        });
    };
    let offsets = list.value_offsets();
    let mut row = 0;
    // Elements come in order, so the row of each is found by walking the offsets beside them.
    for_each_scalar(list.values(), |element, hash| {
        while row < list.len() && element >= offsets[row + 1] as usize {
            row += 1;
        }
        if row < list.len() && element >= offsets[row] as usize && list.is_valid(row) && passes(row) {
            visit(row, hash);
        }
    })
}

fn for_each_scalar(column: &ArrayRef, mut visit: impl FnMut(usize, u64)) -> Result<()> {
    macro_rules! each {
        ($array:expr, $hash:expr) => {
            for (row, value) in $array.iter().enumerate() {
                if let Some(value) = value {
                    visit(row, $hash(value));
                }
            }
        };
    }
    match column.data_type() {
        DataType::UInt64 => each!(column.as_primitive::<UInt64Type>(), mix),
        DataType::Int64 => each!(column.as_primitive::<Int64Type>(), |value: i64| mix(value as u64)),
        // Minus zero is zero.
        DataType::Float64 => each!(column.as_primitive::<Float64Type>(), |value: f64| mix((value + 0.0).to_bits())),
        DataType::Boolean => each!(column.as_boolean(), |value: bool| mix(u64::from(value))),
        DataType::Utf8 => each!(column.as_string::<i32>(), |value: &str| XxHash64::oneshot(0, value.as_bytes())),
        other => return exec_err!("values of type {other} have no hash here"),
    }
    Ok(())
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the value reaches every bit of the hash.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ListArray, StringArray};
    use std::sync::Arc;

    #[test]
    fn list_elements_belong_to_their_rows() {
        let lists: [Option<Vec<Option<u64>>>; 5] =
            [Some(vec![Some(1), Some(2)]), None, Some(vec![]), Some(vec![None, Some(1)]), Some(vec![Some(9)])];
        let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>(lists));
        let filter = BooleanArray::from(vec![Some(true), Some(true), Some(true), Some(true), None]);
        for (column, first) in [(list.clone(), 0), (list.slice(1, 4), 1)] {
            let mut seen = Vec::new();
            for_each(&column, Some(&filter.slice(first, column.len())), |row, hash| seen.push((row + first, hash)))
                .unwrap();
            let expected = [(0, mix(1)), (0, mix(2)), (3, mix(1))];
            assert_eq!(seen, expected.into_iter().filter(|(row, _)| *row >= first).collect::<Vec<_>>());
        }
    }

    #[test]
    fn hashes_never_change() {
        let mut seen = Vec::new();
        let text: ArrayRef = Arc::new(StringArray::from(vec!["example.org"]));
        for_each(&text, None, |_, hash| seen.push(hash)).unwrap();
        // States that were written by an older version have these in them.
        assert_eq!(seen, [XxHash64::oneshot(0, b"example.org")]);
        assert_eq!(mix(1), 0x910a_2dec_8902_5cc1);
    }
}
