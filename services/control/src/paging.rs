//! How much one page of a list holds.

use tonic::Status;

const DEFAULT_PAGE: u32 = 100;
const MAX_PAGE: u32 = 1_000;

/// How many entries a page has when `asked` are asked for.
///
/// # Errors
/// `INVALID_ARGUMENT` when they are too many.
pub(crate) fn page_size(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(DEFAULT_PAGE as usize),
        size if size <= MAX_PAGE => Ok(size as usize),
        size => Err(Status::invalid_argument(format!("page_size is {size}; allowed: 0 to {MAX_PAGE}"))),
    }
}
