//! From a URL and the environment to a client of the bucket.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::client::SpawnedReqwestConnector;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::super::{io, object_path};
use crate::error::StorageError;

const SCHEME: &str = "s3://";
/// Reads are tried again for so long.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// `s3://bucket` or `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketUrl {
    bucket: String,
    /// Without slashes at its ends; may be empty.
    prefix: String,
}

impl FromStr for BucketUrl {
    type Err = StorageError;

    /// # Errors
    /// [`StorageError::Invalid`] if it is something else.
    fn from_str(text: &str) -> Result<BucketUrl, StorageError> {
        let invalid = |reason: &str| {
            let text = format!("storage.object_store cannot be {text:?}: {reason}");
            Err(StorageError::Invalid(text))
        };
        let Some(place) = text.strip_prefix(SCHEME) else {
            return invalid("only s3://bucket/prefix is supported");
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        if bucket.is_empty() || bucket.contains(['@', ':', '?', '#', ' ']) {
            return invalid("the name of a bucket has to follow s3://");
        }
        if !prefix.is_empty() && object_path(prefix).is_err() {
            return invalid("its prefix is no path");
        }
        Ok(BucketUrl { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Two clients of a bucket, and the thread they need.
#[derive(Debug)]
pub(super) struct Connection {
    /// Tries again for a while.
    pub(super) patient: Arc<dyn ObjectStore>,
    /// Tries once.
    pub(super) single: Arc<dyn ObjectStore>,
    pub(super) requests: RequestThread,
}

impl Connection {
    /// A connection with the credentials, region and endpoint of the environment. Nothing is sent
    /// yet.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] if variables of the environment make no sense.
    pub(super) fn new(url: &BucketUrl) -> Result<Connection, StorageError> {
        let requests = RequestThread::start()?;
        let patient = RetryConfig { retry_timeout: READ_PATIENCE, ..RetryConfig::default() };
        let single = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let client = |retry| client(url, retry, &requests.runtime);
        Ok(Connection { patient: client(patient)?, single: client(single)?, requests })
    }
}

fn client(
    url: &BucketUrl,
    retry: RetryConfig,
    requests: &Handle,
) -> Result<Arc<dyn ObjectStore>, StorageError> {
    let built = AmazonS3Builder::from_env()
        .with_bucket_name(&url.bucket)
        .with_retry(retry)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_http_connector(SpawnedReqwestConnector::new(requests.clone()))
        .build();
    let store = built.map_err(|source| {
        let text = format!("cannot connect to {url}, look at the AWS_ variables: {source}");
        StorageError::Invalid(text)
    })?;
    Ok(Arc::new(PrefixStore::new(store, object_path(&url.prefix)?)))
}

/// The thread on which all requests to a bucket run, so that none depends on the runtime of the
/// caller that happened to open a connection. It ends with the value.
#[derive(Debug)]
pub(super) struct RequestThread {
    runtime: Handle,
    _running: oneshot::Sender<Infallible>,
}

impl RequestThread {
    fn start() -> Result<RequestThread, StorageError> {
        let start = || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (running, ended) = oneshot::channel();
            let run = move || drop(runtime.block_on(ended));
            std::thread::Builder::new().name("highwater-bucket".to_owned()).spawn(run)?;
            Ok(RequestThread { runtime: handle, _running: running })
        };
        start().map_err(|source: std::io::Error| io("start", "the thread of the bucket", source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_bucket_and_a_prefix() {
        let shown = |text: &str| text.parse::<BucketUrl>().map(|url| url.to_string());
        assert_eq!(shown("s3://b").unwrap(), "s3://b");
        assert_eq!(shown("s3://b/plant/one/").unwrap(), "s3://b/plant/one");
        for wrong in
            ["gs://b", "az://b/x", "/data", "s3://", "s3:///x", "s3://b/../x", "s3://b//x//y"]
        {
            let error = shown(wrong).unwrap_err().to_string();
            assert!(error.contains("storage.object_store") && error.contains(wrong), "{error}");
        }
    }
}
