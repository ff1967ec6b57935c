//! Columns of a table, described once: their Delta schema, their Arrow builders and their documentation follow.

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Float64Builder, Int32Builder, Int64Builder, ListBuilder,
    StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType as ArrowType, Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use deltalake::kernel::{ArrayType, DataType, MetadataValue, PrimitiveType, StructField};
use std::sync::Arc;

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its name, the same in every tool.
    pub name: &'static str,
    /// What stands in it.
    pub kind: ColumnKind,
    /// What it means, with its unit: one sentence, which stands in the table as the column's comment.
    pub meaning: &'static str,
}

/// What stands in a column. All but those of a table's key may be NULL: what is not known, or does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// A UTC day.
    Date,
    /// A point in time, in microseconds, UTC.
    Time,
    /// Text.
    Text,
    /// A list of texts.
    Texts,
    /// A number of 32 bits.
    Int,
    /// A number of 64 bits.
    Long,
    /// A list of numbers of 64 bits.
    Longs,
    /// A number with a fraction.
    Double,
    /// True or false.
    Bool,
    /// Octets.
    Octets,
}

/// Fills the columns of a table, row by row and in their order.
pub struct Rows {
    columns: &'static [Column],
    schema: SchemaRef,
    builders: Vec<Builder>,
    at: usize,
    complete: usize,
}

enum Builder {
    Date(Date32Builder),
    Time(TimestampMicrosecondBuilder),
    Text(StringBuilder),
    Texts(ListBuilder<StringBuilder>),
    Int(Int32Builder),
    Long(Int64Builder),
    Longs(ListBuilder<Int64Builder>),
    Double(Float64Builder),
    Bool(BooleanBuilder),
    Octets(BinaryBuilder),
}

impl Column {
    /// Shorthand for the tables' lists.
    pub const fn new(name: &'static str, kind: ColumnKind, meaning: &'static str) -> Self {
        Self { name, kind, meaning }
    }

    /// The column in a Delta schema. Every column may be NULL, so that one that is added later fits older files.
    pub fn to_delta(&self) -> StructField {
        let comment = MetadataValue::String(self.meaning.to_owned());
        StructField::new(self.name, self.kind.to_delta(), true).with_metadata([("comment", comment)])
    }
}

impl ColumnKind {
    fn to_delta(self) -> DataType {
        let primitive = match self {
            Self::Date => PrimitiveType::Date,
            Self::Time => PrimitiveType::Timestamp,
            Self::Text | Self::Texts => PrimitiveType::String,
            Self::Int => PrimitiveType::Integer,
            Self::Long | Self::Longs => PrimitiveType::Long,
            Self::Double => PrimitiveType::Double,
            Self::Bool => PrimitiveType::Boolean,
            Self::Octets => PrimitiveType::Binary,
        };
        match self {
            Self::Texts | Self::Longs => ArrayType::new(DataType::from(primitive), false).into(),
            _ => primitive.into(),
        }
    }

    /// As SQL calls it, for the documentation.
    pub fn sql_name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::Time => "timestamp",
            Self::Text => "string",
            Self::Texts => "array<string>",
            Self::Int => "int",
            Self::Long => "bigint",
            Self::Longs => "array<bigint>",
            Self::Double => "double",
            Self::Bool => "boolean",
            Self::Octets => "binary",
        }
    }
}

impl Rows {
    /// None yet. `schema` is the Arrow schema of `columns`.
    pub fn new(columns: &'static [Column], schema: SchemaRef) -> Self {
        let builders =
            columns.iter().zip(schema.fields()).map(|(column, field)| Builder::new(column.kind, field)).collect();
        Self { columns, schema, builders, at: 0, complete: 0 }
    }

    /// Rows that are complete.
    pub fn len(&self) -> usize {
        self.complete
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.complete == 0
    }

    fn next(&mut self) -> &mut Builder {
        let builder = &mut self.builders[self.at];
        self.at += 1;
        builder
    }

    /// The next column of the row: a day, counted from 1970.
    pub fn date(&mut self, days: i32) -> &mut Self {
        if let Builder::Date(builder) = self.next() {
            builder.append_value(days);
        }
        self
    }

    /// The next column: a time, in milliseconds since 1970.
    pub fn time_ms(&mut self, ms: impl Into<Option<i64>>) -> &mut Self {
        if let Builder::Time(builder) = self.next() {
            builder.append_option(ms.into().map(|ms| ms.saturating_mul(1_000)));
        }
        self
    }

    /// The next column: text; the empty one stands for none.
    pub fn text(&mut self, text: &str) -> &mut Self {
        if let Builder::Text(builder) = self.next() {
            builder.append_option((!text.is_empty()).then_some(text));
        }
        self
    }

    /// The next column: texts; no list stands for none.
    pub fn texts<T: AsRef<str>>(&mut self, texts: Option<impl IntoIterator<Item = T>>) -> &mut Self {
        if let Builder::Texts(builder) = self.next() {
            let is_some = texts.is_some();
            for text in texts.into_iter().flatten() {
                builder.values().append_value(text);
            }
            builder.append(is_some);
        }
        self
    }

    /// The next column: a number of 32 bits; what does not fit is cut down to the largest.
    pub fn int(&mut self, number: Option<u64>) -> &mut Self {
        if let Builder::Int(builder) = self.next() {
            builder.append_option(number.map(|number| i32::try_from(number).unwrap_or(i32::MAX)));
        }
        self
    }

    /// The next column: a number of 64 bits. Delta has no unsigned numbers: hashes keep their bits.
    pub fn long(&mut self, number: Option<u64>) -> &mut Self {
        if let Builder::Long(builder) = self.next() {
            builder.append_option(number.map(u64::cast_signed));
        }
        self
    }

    /// The next column: numbers of 64 bits, which keep their bits; no list stands for none.
    pub fn longs(&mut self, numbers: Option<&[u64]>) -> &mut Self {
        if let Builder::Longs(builder) = self.next() {
            for number in numbers.unwrap_or_default() {
                builder.values().append_value(number.cast_signed());
            }
            builder.append(numbers.is_some());
        }
        self
    }

    /// The next column: a number with a fraction; none for what is no number.
    pub fn double(&mut self, number: Option<f64>) -> &mut Self {
        if let Builder::Double(builder) = self.next() {
            builder.append_option(number.filter(|number| !number.is_nan()));
        }
        self
    }

    /// The next column: true or false.
    pub fn bool(&mut self, value: Option<bool>) -> &mut Self {
        if let Builder::Bool(builder) = self.next() {
            builder.append_option(value);
        }
        self
    }

    /// The next column: octets.
    pub fn octets(&mut self, octets: Option<&[u8]>) -> &mut Self {
        if let Builder::Octets(builder) = self.next() {
            builder.append_option(octets);
        }
        self
    }

    /// The next `count` columns do not apply.
    pub fn nothing(&mut self, count: usize) -> &mut Self {
        for _ in 0..count {
            self.next().append_null();
        }
        self
    }

    /// The row is complete.
    ///
    /// # Panics
    /// In tests, when a column was forgotten.
    pub fn end(&mut self) {
        debug_assert_eq!(self.at, self.columns.len(), "a row has as many values as there are columns");
        self.at = 0;
        self.complete += 1;
    }

    /// All rows so far, as they came; there are none afterwards.
    ///
    /// # Errors
    /// When the columns do not fit the schema, or hold more than Arrow can address.
    pub fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        self.complete = 0;
        let columns = self.builders.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

impl Builder {
    fn new(kind: ColumnKind, field: &Field) -> Self {
        match kind {
            ColumnKind::Date => Self::Date(Date32Builder::new()),
            ColumnKind::Time => {
                Self::Time(TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone()))
            }
            ColumnKind::Text => Self::Text(StringBuilder::new()),
            ColumnKind::Texts => Self::Texts(with_element(ListBuilder::new(StringBuilder::new()), field)),
            ColumnKind::Int => Self::Int(Int32Builder::new()),
            ColumnKind::Long => Self::Long(Int64Builder::new()),
            ColumnKind::Longs => Self::Longs(with_element(ListBuilder::new(Int64Builder::new()), field)),
            ColumnKind::Double => Self::Double(Float64Builder::new()),
            ColumnKind::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnKind::Octets => Self::Octets(BinaryBuilder::new()),
        }
    }

    fn append_null(&mut self) {
        match self {
            Self::Date(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Text(builder) => builder.append_null(),
            Self::Texts(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Long(builder) => builder.append_null(),
            Self::Longs(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Bool(builder) => builder.append_null(),
            Self::Octets(builder) => builder.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Date(builder) => Arc::new(builder.finish()),
            Self::Time(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Texts(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Long(builder) => Arc::new(builder.finish()),
            Self::Longs(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Octets(builder) => Arc::new(builder.finish()),
        }
    }
}

/// The list's elements as the table's schema has them.
fn with_element<B: arrow::array::ArrayBuilder>(builder: ListBuilder<B>, field: &Field) -> ListBuilder<B> {
    match field.data_type() {
        ArrowType::List(element) => builder.with_field(Arc::clone(element)),
        _ => builder,
    }
}
