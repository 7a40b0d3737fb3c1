//! A server of the S3 protocol on loopback that can go away and come back.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_tests::Launch;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// The bucket that every server has.
pub(crate) const BUCKET: &str = "plant-data";
const KEY_ID: &str = "test-key";
const KEY: &str = "test-secret";

/// A server with one bucket; ends with the value.
pub(crate) struct S3Server {
    root: TempDir,
    address: SocketAddr,
    /// So many answers to writes are lost from now on, after the writes were done.
    answers_to_lose: Arc<AtomicUsize>,
    running: Option<Runtime>,
}

impl S3Server {
    pub(crate) fn start() -> S3Server {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let answers_to_lose = Arc::default();
        let mut server = S3Server { root, address, answers_to_lose, running: None };
        server.resume();
        server
    }

    /// Serves again, at the same address.
    pub(crate) fn resume(&mut self) {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let mut service = S3ServiceBuilder::new(FileSystem::new(self.root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, KEY));
        let (service, answers_to_lose) = (service.build(), Arc::clone(&self.answers_to_lose));
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(answer(stream, service.clone(), Arc::clone(&answers_to_lose)));
            }
        });
        self.running = Some(runtime);
    }

    /// Closes the port and breaks off all connections.
    pub(crate) fn stop(&mut self) {
        drop(self.running.take());
    }

    pub(crate) fn lose_answers(&self, answers: usize) {
        self.answers_to_lose.store(answers, Ordering::SeqCst);
    }

    /// The launch with this store and the credentials for it.
    pub(crate) fn used_by(&self, launch: Launch, url: &str) -> Launch {
        let launch = launch.variable("HIGHWATER_STORAGE__OBJECT_STORE", url);
        let variables = self.variables().into_iter();
        variables.fold(launch, |launch, (name, value)| launch.variable(name, &value))
    }

    /// What a client needs to know.
    pub(crate) fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("NO_PROXY", "127.0.0.1".to_owned()),
        ]
    }

    /// The objects below a prefix, as files.
    pub(crate) fn objects(&self, prefix: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.root.path().join(BUCKET).join(prefix), &mut found);
        found.sort();
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => collect(&path, found),
            path => found.push(path),
        }
    }
}

/// Answers the requests of one connection.
async fn answer(stream: TcpStream, service: S3Service, answers_to_lose: Arc<AtomicUsize>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let is_write = request.method() == Method::PUT;
        let (answering, answers_to_lose) =
            (Service::call(&service, request), Arc::clone(&answers_to_lose));
        async move {
            let answer = answering.await.unwrap();
            let one_less = |left: usize| left.checked_sub(1);
            let order = Ordering::SeqCst;
            if is_write && answers_to_lose.fetch_update(order, order, one_less).is_ok() {
                return Err("the answer is lost");
            }
            Ok(answer)
        }
    });
    // A client that has gone is its own business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
