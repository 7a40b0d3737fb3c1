//! A bucket of an object store, below a prefix: where segments and the manifest can live.

mod connection;
mod creation;
#[cfg(test)]
pub(crate) mod faulty;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use super::{io, object_path};
use crate::error::StorageError;

use connection::{Connection, RequestThread};

pub(crate) use connection::BucketUrl;

/// An object that shows whether the bucket answers, and whether it keeps what is there.
const PROBE: &str = "probe";
const PROBE_TEXT: &str = "Highwater creates this again at every start, which has to fail.\n";

/// A bucket below a prefix. Paths are relative to the prefix.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// As in the settings.
    url: String,
    /// For reading: tries again for a while.
    patient: Arc<dyn ObjectStore>,
    /// For writing: tries once, so that its errors say what has happened.
    single: Arc<dyn ObjectStore>,
    patience: Patience,
    /// Ends with the value; a bucket in memory has none.
    _requests: Option<RequestThread>,
}

/// How long it is tried to find out what became of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Between two tries.
    pub(crate) pause: Duration,
    /// So often ...
    pub(crate) tries: usize,
    /// ... and no longer in all; what is on its way then is waited for.
    pub(crate) total: Duration,
}

impl Bucket {
    /// Connects to the bucket with the credentials, region and endpoint of the environment, and
    /// makes sure that it answers.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if the environment makes no sense, [`StorageError::Unreachable`]
    /// if the bucket does not answer, does not exist or may not be listed.
    pub(crate) async fn connect(url: &BucketUrl) -> Result<Bucket, StorageError> {
        let Connection { patient, single, requests } = Connection::new(url)?;
        let (pause, total) = (Duration::from_secs(1), Duration::from_secs(60));
        let patience = Patience { pause, tries: 60, total };
        let (url, _requests) = (url.to_string(), Some(requests));
        let bucket = Bucket { url, patient, single, patience, _requests };
        let all = bucket.single.list(Some(&object_path("manifest")?));
        match all.take(1).try_collect::<Vec<_>>().await {
            Ok(_) => Ok(bucket),
            Err(source) => Err(bucket.unreachable(source)),
        }
    }

    /// A bucket of which both reads and writes go to `store`.
    #[cfg(test)]
    pub(crate) fn of(url: &str, store: Arc<dyn ObjectStore>) -> Bucket {
        let (pause, total) = (Duration::from_millis(1), Duration::from_secs(600));
        let patience = Patience { pause, tries: 10, total };
        let (url, patient) = (url.to_owned(), Arc::clone(&store));
        Bucket { url, patient, single: store, patience, _requests: None }
    }

    /// For reading; tries again for a while.
    pub(super) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.patient
    }

    /// Asks once whether the bucket answers.
    ///
    /// # Errors
    /// [`StorageError::Unreachable`] if it does not.
    pub(super) async fn check_reachable(&self) -> Result<(), StorageError> {
        match self.single.head(&object_path(PROBE)?).await {
            Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.unreachable(source)),
        }
    }

    /// Makes sure that creating an object which is there fails, as everything rests on that.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if it does not, [`StorageError::Unreachable`] if the bucket does
    /// not answer or may not be written to.
    pub(super) async fn check_conditional_writes(&self) -> Result<(), StorageError> {
        let location = object_path(PROBE)?;
        // The first time it may not be there yet.
        for _ in 0..2 {
            let options = PutOptions::from(PutMode::Create);
            match self.single.put_opts(&location, PROBE_TEXT.into(), options).await {
                Ok(_) => {}
                Err(Error::AlreadyExists { .. }) => return Ok(()),
                Err(source) => return Err(self.unreachable(source)),
            }
        }
        Err(StorageError::Invalid(format!(
            "the object store {} overwrites what it is asked to create (If-None-Match: *), so two \
             servers could write at once; use one that does not",
            self.url
        )))
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// [`StorageError::Io`]; then it may have been replaced all the same.
    pub(super) async fn overwrite(&self, path: &str, bytes: Bytes) -> Result<(), StorageError> {
        let put = self.single.put(&object_path(path)?, bytes.into()).await;
        put.map(drop).map_err(|source| io("write", path, source))
    }

    /// Deletes objects, many with one request; one that is gone already is no error.
    ///
    /// # Errors
    /// [`StorageError::Io`] with the first one that could not be deleted.
    pub(super) async fn delete_all(&self, paths: &[String]) -> Result<(), StorageError> {
        let locations: Result<Vec<ObjectPath>, _> = paths.iter().map(|p| object_path(p)).collect();
        let locations = stream::iter(locations?).map(Ok).boxed();
        let mut deleted = self.single.delete_stream(locations);
        while let Some(outcome) = deleted.next().await {
            match outcome {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(source) => return Err(io("delete", &self.url, source)),
            }
        }
        Ok(())
    }

    fn unreachable(&self, source: Error) -> StorageError {
        let source = Box::new(BucketFailure::of(&source));
        StorageError::Unreachable { url: self.url.clone(), source }
    }
}

/// Why a request failed: what was asked for, and the last cause. Most errors in between repeat
/// what they contain.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct BucketFailure(String);

impl BucketFailure {
    fn of(error: &Error) -> BucketFailure {
        let mut text = error.to_string();
        let mut last: &dyn std::error::Error = error;
        while let Some(cause) = last.source() {
            last = cause;
        }
        let last = last.to_string();
        if !text.contains(&last) {
            text = format!("{text}: {last}");
        }
        BucketFailure(text)
    }
}
