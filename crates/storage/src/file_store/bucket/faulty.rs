//! A bucket in memory whose answers get lost, for tests.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It never leaves; the store is known not to have got it.
    NeverSent,
    /// It gets lost on its way.
    Lost,
    /// It is carried out and the answer gets lost.
    AnswerLost,
    /// The same, and the store does not answer any more.
    ThenSilence,
}

/// Objects in memory, shared by clones.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultyBucket(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    objects: InMemory,
    /// Of the next puts, in order; then all is well again.
    puts: Mutex<VecDeque<Option<Fault>>>,
    /// Of all requests, as long as it is there.
    always: Mutex<Option<Fault>>,
    /// Whether creating replaces what is there.
    is_careless: AtomicBool,
    /// Number of gets, also of ranges.
    gets: AtomicUsize,
}

impl FaultyBucket {
    /// What becomes of the next puts.
    pub(crate) fn next_puts(&self, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.0.puts.lock().extend(faults);
    }

    /// From now on all is well.
    pub(crate) fn recover(&self) {
        self.0.puts.lock().clear();
        self.always(None);
    }

    /// What becomes of every request from now on.
    pub(crate) fn always(&self, fault: Option<Fault>) {
        *self.0.always.lock() = fault;
    }

    /// From now on creating replaces what is there.
    pub(crate) fn be_careless(&self) {
        self.0.is_careless.store(true, Ordering::Relaxed);
    }

    /// Number of gets so far, also of ranges.
    pub(crate) fn gets(&self) -> usize {
        self.0.gets.load(Ordering::Relaxed)
    }

    fn check(&self, fault: Option<Fault>) -> Result<()> {
        fault.or(*self.0.always.lock()).map_or(Ok(()), |fault| Err(error(fault)))
    }
}

fn error(fault: Fault) -> Error {
    let kind = match fault {
        Fault::NeverSent => HttpErrorKind::Connect,
        Fault::Lost | Fault::AnswerLost | Fault::ThenSilence => HttpErrorKind::Interrupted,
    };
    let source = HttpError::new(kind, io::Error::other("the connection broke off"));
    Error::Generic { store: "faulty", source: Box::new(source) }
}

impl fmt::Display for FaultyBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for FaultyBucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        if self.0.is_careless.load(Ordering::Relaxed) {
            options.mode = PutMode::Overwrite;
        }
        let fault = self.0.puts.lock().pop_front().flatten();
        if !matches!(fault, Some(Fault::AnswerLost | Fault::ThenSilence)) {
            self.check(fault)?;
        }
        let done = self.0.objects.put_opts(location, payload, options).await?;
        if fault == Some(Fault::ThenSilence) {
            self.always(Some(Fault::Lost));
        }
        self.check(fault).map(|()| done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check(None)?;
        self.0.gets.fetch_add(usize::from(!options.head), Ordering::Relaxed);
        self.0.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check(None)?;
        self.0.gets.fetch_add(1, Ordering::Relaxed);
        self.0.objects.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.check(None) {
            Ok(()) => self.0.objects.delete_stream(locations),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check(None) {
            Ok(()) => self.0.objects.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check(None)?;
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.objects.copy_opts(from, to, options).await
    }
}
