//! Our own aggregate functions behind DataFusion's interface: `distinct(x)` and `top_share(x)`.
//!
//! Both keep a [`Digest`] per group: exact while small, an Apache DataSketches sketch once it grows. DataFusion sees
//! an ordinary aggregate whose state is one binary column: empty for no values, else a tag and what follows it.

mod accumulator;
mod distinct;
mod hashes;
mod top_share;

pub(crate) use distinct::DistinctDigest;
pub(crate) use top_share::TopShareDigest;

use accumulator::{DigestAccumulator, DigestGroups};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// What one group of values comes down to.
pub(crate) trait Digest: Default + Debug + Send + Sync + 'static {
    /// Name of the SQL function.
    const NAME: &'static str;

    /// Adds one value, given by its hash (see [`hashes`]).
    fn add(&mut self, hash: u64);

    /// Adds what another digest wrote.
    ///
    /// # Errors
    /// When `bytes` is not what [`write`](Self::write) gives.
    fn merge(&mut self, bytes: &[u8]) -> Result<()>;

    /// Appends its state; nothing when it is empty.
    fn write(&self, bytes: &mut Vec<u8>);

    /// The aggregate's value; none is NULL.
    fn value(&self) -> Option<f64>;

    /// Bytes it takes besides its own size.
    fn heap_bytes(&self) -> usize;
}

/// `distinct(x)`: how many different values there are; of a list column, how many different elements.
pub(crate) fn distinct() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(DigestFunction::<DistinctDigest>::new()))
}

/// `top_share(x)`: the share of the most frequent value, from 0 to 1; NULL when there is none.
pub(crate) fn top_share() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(DigestFunction::<TopShareDigest>::new()))
}

/// Whether `bytes` is a state that the aggregate function `name` can merge.
pub(crate) fn is_digest(name: &str, bytes: &[u8]) -> bool {
    match name {
        DistinctDigest::NAME => DistinctDigest::default().merge(bytes).is_ok(),
        TopShareDigest::NAME => TopShareDigest::default().merge(bytes).is_ok(),
        _ => false,
    }
}

/// The aggregate function of one kind of digest.
#[derive(Debug)]
struct DigestFunction<D> {
    signature: Signature,
    digest: PhantomData<fn() -> D>,
}

impl<D> DigestFunction<D> {
    fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable), digest: PhantomData }
    }
}

impl<D: Digest> AggregateUDFImpl for DigestFunction<D> {
    fn name(&self) -> &str {
        D::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [argument] if hashes::is_hashable(argument) => Ok(DataType::Float64),
            _ => plan_err!("{} takes one number, truth value, text or list of numbers", D::NAME),
        }
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[digest]", arguments.name), DataType::Binary, false))])
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(DigestAccumulator::<D>::default()))
    }

    fn groups_accumulator_supported(&self, _: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(DigestGroups::<D>::default()))
    }
}

impl<D: Digest> PartialEq for DigestFunction<D> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<D: Digest> Eq for DigestFunction<D> {}

impl<D: Digest> Hash for DigestFunction<D> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        D::NAME.hash(state);
    }
}
