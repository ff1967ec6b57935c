//! The compact form of one pane's aggregate state: what the engine keeps by the million.
//!
//! A row is a header with two bits for each state column, then the values of the columns that need any. Most columns
//! of most panes are zero or NULL and cost two bits; small integers, and floats that are whole numbers, one octet
//! or two.
//!
//! | bits | meaning | octets that follow |
//! |---|---|---|
//! | 0 | NULL | none |
//! | 1 | zero, false, empty | none |
//! | 2 | an integer: varint (signed ones zigzag); a float: 8 octets little-endian; true: none; binary: varint length, octets | as said |
//! | 3 | a float that is a whole number | zigzag varint |

use crate::varint;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Float64Array, Float64Builder,
    Int64Array, Int64Builder, UInt64Array, UInt64Builder,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, UInt64Type};
use datafusion::common::{Result, exec_err};
use std::sync::Arc;

const NULL: u8 = 0;
const ZERO: u8 = 1;
const VALUE: u8 = 2;
const WHOLE: u8 = 3;

/// Type of a state column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateType {
    Int,
    UInt,
    Float,
    Bool,
    Bytes,
}

impl StateType {
    /// None when rows cannot hold such a column.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Int64 => Some(Self::Int),
            DataType::UInt64 => Some(Self::UInt),
            DataType::Float64 => Some(Self::Float),
            DataType::Boolean => Some(Self::Bool),
            DataType::Binary => Some(Self::Bytes),
            _ => None,
        }
    }

    /// Its name where layouts are written down.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int => "int",
            Self::UInt => "uint",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Bytes => "bytes",
        }
    }

    /// The type of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Int, Self::UInt, Self::Float, Self::Bool, Self::Bytes].into_iter().find(|known| known.name() == name)
    }
}

/// State columns, ready to be written as rows.
pub(crate) struct Encoder<'a> {
    columns: Vec<Column<'a>>,
    values: Vec<u8>,
}

enum Column<'a> {
    Int(&'a Int64Array),
    UInt(&'a UInt64Array),
    Float(&'a Float64Array),
    Bool(&'a BooleanArray),
    Bytes(&'a BinaryArray),
}

impl<'a> Encoder<'a> {
    /// # Errors
    /// When a column is of a type that rows cannot hold.
    pub fn new(columns: &'a [ArrayRef]) -> Result<Self> {
        let column = |column: &'a ArrayRef| match column.data_type() {
            DataType::Int64 => Ok(Column::Int(column.as_primitive::<Int64Type>())),
            DataType::UInt64 => Ok(Column::UInt(column.as_primitive::<UInt64Type>())),
            DataType::Float64 => Ok(Column::Float(column.as_primitive::<Float64Type>())),
            DataType::Boolean => Ok(Column::Bool(column.as_boolean())),
            DataType::Binary => Ok(Column::Bytes(column.as_binary::<i32>())),
            other => exec_err!("a state of type {other} has no compact form"),
        };
        Ok(Self { columns: columns.iter().map(column).collect::<Result<_>>()?, values: Vec::new() })
    }

    /// One row of the columns.
    pub fn row(&mut self, index: usize) -> Box<[u8]> {
        let header = self.columns.len().div_ceil(4);
        self.values.clear();
        self.values.resize(header, 0);
        for (position, column) in self.columns.iter().enumerate() {
            let code = column.write(index, &mut self.values);
            self.values[position / 4] |= code << (2 * (position % 4));
        }
        self.values.as_slice().into()
    }
}

impl Column<'_> {
    #[inline]
    fn write(&self, row: usize, bytes: &mut Vec<u8>) -> u8 {
        match self {
            Self::Int(column) if column.is_valid(row) => match column.value(row) {
                0 => ZERO,
                value => {
                    varint::write(varint::zigzag(value), bytes);
                    VALUE
                }
            },
            Self::UInt(column) if column.is_valid(row) => match column.value(row) {
                0 => ZERO,
                value => {
                    varint::write(value, bytes);
                    VALUE
                }
            },
            Self::Float(column) if column.is_valid(row) => write_float(column.value(row), bytes),
            Self::Bool(column) if column.is_valid(row) => [ZERO, VALUE][usize::from(column.value(row))],
            Self::Bytes(column) if column.is_valid(row) => match column.value(row) {
                [] => ZERO,
                value => {
                    varint::write(value.len() as u64, bytes);
                    bytes.extend_from_slice(value);
                    VALUE
                }
            },
            Self::Int(_) | Self::UInt(_) | Self::Float(_) | Self::Bool(_) | Self::Bytes(_) => NULL,
        }
    }
}

fn write_float(value: f64, bytes: &mut Vec<u8>) -> u8 {
    let whole = value as i64;
    if value.to_bits() == 0 {
        ZERO
    } else if (whole as f64).to_bits() == value.to_bits() && whole.unsigned_abs() < 1 << 48 {
        varint::write(varint::zigzag(whole), bytes);
        WHOLE
    } else {
        bytes.extend_from_slice(&value.to_le_bytes());
        VALUE
    }
}

/// Turns rows back into state columns; only those that are wanted.
pub(crate) struct Decoder<'a> {
    types: &'a [StateType],
    /// For each column up to the last wanted one, its builder.
    builders: Vec<Option<Builder>>,
}

enum Builder {
    Int(Int64Builder),
    UInt(UInt64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
    Bytes(BinaryBuilder),
}

impl<'a> Decoder<'a> {
    pub fn new(types: &'a [StateType], wanted: impl Fn(usize) -> bool) -> Self {
        let last = (0..types.len()).rev().find(|column| wanted(*column)).map_or(0, |column| column + 1);
        let builder = |column: usize| wanted(column).then(|| Builder::new(types[column]));
        Self { types, builders: (0..last).map(builder).collect() }
    }

    /// Appends one row.
    ///
    /// # Errors
    /// When it is not what [`Encoder::row`] gives for these types.
    pub fn push(&mut self, row: &[u8]) -> Result<()> {
        let Some((header, mut rest)) = row.split_at_checked(self.types.len().div_ceil(4)) else {
            return exec_err!("a stored state is damaged: it has {} octets", row.len());
        };
        for (position, builder) in self.builders.iter_mut().enumerate() {
            let code = header[position / 4] >> (2 * (position % 4)) & 3;
            let value = match Value::read(code, self.types[position], rest) {
                Some((value, after)) => {
                    rest = after;
                    value
                }
                None => return exec_err!("a stored state is damaged: column {position} ends early"),
            };
            if let Some(builder) = builder {
                builder.append(value);
            }
        }
        Ok(())
    }

    /// The columns; none for those that were not wanted.
    pub fn finish(self) -> Vec<Option<ArrayRef>> {
        self.builders.into_iter().map(|builder| builder.map(Builder::finish)).collect()
    }
}

/// One value of a row, as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell<'a> {
    code: u8,
    octets: &'a [u8],
}

impl Cell<'_> {
    /// The octets of a value of type [`StateType::Bytes`] that is there and not empty.
    pub fn octets(&self, of: StateType) -> Option<&[u8]> {
        match Value::read(self.code, of, self.octets)?.0 {
            Value::Bytes(value) => Some(value),
            _ => None,
        }
    }
}

/// The values of a row; none when it is not one of these types.
pub(crate) fn cells<'a>(row: &'a [u8], types: &[StateType]) -> Option<Vec<Cell<'a>>> {
    let (header, mut rest) = row.split_at_checked(types.len().div_ceil(4))?;
    let mut cells = Vec::with_capacity(types.len());
    for (position, of) in types.iter().enumerate() {
        let code = header[position / 4] >> (2 * (position % 4)) & 3;
        let (_, after) = Value::read(code, *of, rest)?;
        cells.push(Cell { code, octets: &rest[..rest.len() - after.len()] });
        rest = after;
    }
    rest.is_empty().then_some(cells)
}

/// The row of these values.
pub(crate) fn join(cells: &[Cell]) -> Box<[u8]> {
    let mut row = vec![0; cells.len().div_ceil(4)];
    for (position, cell) in cells.iter().enumerate() {
        row[position / 4] |= cell.code << (2 * (position % 4));
        row.extend_from_slice(cell.octets);
    }
    row.into()
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Null,
    /// Of every type: zero, false, empty.
    Zero,
    Int(u64),
    Float(f64),
    True,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    #[inline]
    fn read(code: u8, of: StateType, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        match (code, of) {
            (NULL, _) => Some((Self::Null, bytes)),
            (ZERO, _) => Some((Self::Zero, bytes)),
            (VALUE, StateType::Bool) => Some((Self::True, bytes)),
            (VALUE, StateType::Int | StateType::UInt) => {
                let (value, rest) = varint::read(bytes)?;
                Some((Self::Int(value), rest))
            }
            (VALUE, StateType::Float) => {
                let (value, rest) = bytes.split_first_chunk::<8>()?;
                Some((Self::Float(f64::from_le_bytes(*value)), rest))
            }
            (WHOLE, StateType::Float) => {
                let (value, rest) = varint::read(bytes)?;
                Some((Self::Float(varint::unzigzag(value) as f64), rest))
            }
            (VALUE, StateType::Bytes) => {
                let (length, rest) = varint::read(bytes)?;
                let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                Some((Self::Bytes(value), rest))
            }
            _ => None,
        }
    }
}

impl Builder {
    fn new(of: StateType) -> Self {
        match of {
            StateType::Int => Self::Int(Int64Builder::new()),
            StateType::UInt => Self::UInt(UInt64Builder::new()),
            StateType::Float => Self::Float(Float64Builder::new()),
            StateType::Bool => Self::Bool(BooleanBuilder::new()),
            StateType::Bytes => Self::Bytes(BinaryBuilder::new()),
        }
    }

    /// A value of another type than the builder's cannot come out of [`Value::read`]; it would count as NULL.
    #[inline]
    fn append(&mut self, value: Value) {
        match self {
            Self::Int(builder) => builder.append_option(match value {
                Value::Zero => Some(0),
                Value::Int(value) => Some(varint::unzigzag(value)),
                _ => None,
            }),
            Self::UInt(builder) => builder.append_option(match value {
                Value::Zero => Some(0),
                Value::Int(value) => Some(value),
                _ => None,
            }),
            Self::Float(builder) => builder.append_option(match value {
                Value::Zero => Some(0.0),
                Value::Float(value) => Some(value),
                _ => None,
            }),
            Self::Bool(builder) => builder.append_option(match value {
                Value::Zero => Some(false),
                Value::True => Some(true),
                _ => None,
            }),
            Self::Bytes(builder) => match value {
                Value::Zero => builder.append_value([]),
                Value::Bytes(value) => builder.append_value(value),
                _ => builder.append_null(),
            },
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::UInt(mut builder) => Arc::new(builder.finish()),
            Self::Float(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Bytes(mut builder) => Arc::new(builder.finish()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [StateType; 5] =
        [StateType::Int, StateType::UInt, StateType::Float, StateType::Bool, StateType::Bytes];

    type Row = (Option<i64>, Option<u64>, Option<f64>, Option<bool>, Option<Vec<u8>>);

    fn columns(rows: &[Row]) -> Vec<ArrayRef> {
        vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<UInt64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.3).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.4.as_deref()).collect::<BinaryArray>()),
        ]
    }

    fn float() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), Just(-0.0), Just(f64::INFINITY), (-1000_i32..1000).prop_map(f64::from), any::<f64>()]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            rows in proptest::collection::vec(
                (
                    proptest::option::of(prop_oneof![-3_i64..3, any::<i64>()]),
                    proptest::option::of(prop_oneof![0_u64..3, any::<u64>()]),
                    proptest::option::of(float()),
                    any::<Option<bool>>(),
                    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
                ),
                1..20,
            ),
            wanted: u8,
        ) {
            let columns = columns(&rows);
            let mut encoder = Encoder::new(&columns).unwrap();
            let mut decoder = Decoder::new(&TYPES, |column| wanted >> column & 1 == 1);
            for row in 0..rows.len() {
                decoder.push(&encoder.row(row)).unwrap();
            }
            for (index, column) in decoder.finish().into_iter().enumerate() {
                if let Some(column) = column {
                    prop_assert_eq!(column.to_data(), columns[index].to_data());
                } else {
                    prop_assert_eq!(wanted >> index & 1, 0);
                }
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = Decoder::new(&TYPES, |_| true).push(&bytes);
        }
    }

    #[test]
    fn an_ordinary_pane_is_small() {
        let rows = [(Some(1), Some(1), Some(2_048.0), Some(false), Some(vec![0, 1, 2, 3, 4, 5, 6]))];
        assert_eq!(Encoder::new(&columns(&rows)).unwrap().row(0).len(), 2 + 1 + 1 + 2 + 8);
    }
}
