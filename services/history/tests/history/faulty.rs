//! An object store that fails on request.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// What it is asked.
    None,
    /// Nothing: all fails at once.
    Down,
    /// Takes no more files.
    Full,
    /// Takes files, and says that it did not.
    TakesAndFails,
    /// Does not answer.
    Hangs,
}

/// A store with a fault.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    fault: AtomicU8,
    /// How often it failed.
    pub failed: AtomicUsize,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, fault: AtomicU8::new(Fault::None as u8), failed: AtomicUsize::new(0) })
    }

    pub fn set(&self, fault: Fault) {
        self.failed.store(0, Ordering::SeqCst);
        self.fault.store(fault as u8, Ordering::SeqCst);
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault.load(Ordering::SeqCst) == fault as u8
    }

    fn fail(&self, why: &'static str) -> Error {
        self.failed.fetch_add(1, Ordering::SeqCst);
        Error::Generic { store: "Faulty", source: why.into() }
    }

    async fn may_read(&self) -> Result<()> {
        if self.is(Fault::Hangs) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        if self.is(Fault::Down) { Err(self.fail("connection refused")) } else { Ok(()) }
    }

    async fn may_write(&self) -> Result<()> {
        self.may_read().await?;
        if self.is(Fault::Full) { Err(self.fail("No space left on device (os error 28)")) } else { Ok(()) }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a faulty {}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.may_write().await?;
        let put = self.inner.put_opts(location, payload, options).await?;
        if self.is(Fault::TakesAndFails) {
            // The answer is lost on its way.
            tokio::time::sleep(Duration::from_millis(1)).await;
            return Err(self.fail("operation timed out"));
        }
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.may_write().await?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.may_read().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.is(Fault::Down) {
            let error = self.fail("connection refused");
            return Box::pin(futures::stream::once(async { Err(error) }));
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.may_read().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.may_write().await?;
        self.inner.copy_opts(from, to, options).await
    }
}
