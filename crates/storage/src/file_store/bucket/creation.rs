//! Creating an object exactly once, though answers get lost.
//!
//! ```text
//! put if absent ──► done
//!       ├─ it is taken ───────► read back: ours ──► done
//!       │                                  other ──► conflict
//!       ├─ never sent ────────► nothing has happened
//!       └─ no clear answer ──► read back: absent ──► put again, for a while
//! ```
//!
//! Taking equal bytes for our own is sound because no two writers write the same bytes to the same
//! path: numbers of segments belong to one opening of the database, and so do the commits of the
//! manifest from that opening on. See `docs/adr/0008-fencing-by-the-manifest.md`.

use std::error::Error as StdError;

use bytes::Bytes;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path as ObjectPath;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::super::{object_path, taken};
use super::{Bucket, BucketFailure};
use crate::error::StorageError;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Ours,
    Other,
}

impl Bucket {
    /// Creates an object. If an answer gets lost, it is found out what has happened.
    ///
    /// # Errors
    /// [`StorageError::Conflict`] if the path is taken, [`StorageError::Unreachable`] if nothing
    /// has happened, [`StorageError::Unresolved`] if that could not be found out in time.
    pub(crate) async fn create(&self, path: &str, bytes: Bytes) -> Result<(), StorageError> {
        let location = object_path(path)?;
        let end = Instant::now() + self.patience.total;
        let mut may_be_done = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let options = PutOptions::from(PutMode::Create);
            let put = self.single.put_opts(&location, bytes.clone().into(), options).await;
            let Err(failure) = put else { return Ok(()) };
            may_be_done |= !was_refused(&failure);
            if !may_be_done && !matches!(failure, Error::AlreadyExists { .. }) {
                return Err(self.unreachable(failure));
            }
            match self.found_at(&location, &bytes).await {
                Ok(Found::Ours) => {
                    info!(path, "the answer to a write was lost; it is done");
                    return Ok(());
                }
                Ok(Found::Other) => return Err(taken(path)),
                Ok(Found::Nothing) | Err(_)
                    if tries < self.patience.tries && Instant::now() < end =>
                {
                    warn!(path, error = %BucketFailure::of(&failure), "a write is tried again");
                    sleep(self.patience.pause).await;
                }
                Ok(Found::Nothing) | Err(_) => {
                    let (path, url) = (path.to_owned(), self.url.clone());
                    let source = Box::new(BucketFailure::of(&failure));
                    return Err(StorageError::Unresolved { path, url, source });
                }
            }
        }
    }

    async fn found_at(&self, location: &ObjectPath, ours: &Bytes) -> Result<Found, Error> {
        let read = async { self.single.get(location).await?.bytes().await };
        match read.await {
            Ok(bytes) if bytes == ours => Ok(Found::Ours),
            Ok(_) => Ok(Found::Other),
            Err(Error::NotFound { .. }) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// Whether the object was certainly not written by this request: it was never sent, or the answer
/// was a refusal.
fn was_refused(failure: &Error) -> bool {
    let is_refusal = matches!(
        failure,
        Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotFound { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
    );
    is_refusal || was_never_sent(failure)
}

fn was_never_sent(failure: &Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(failure);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return error.kind() == HttpErrorKind::Connect;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
