//! Requests in flight: two, so that the server has work while an answer is on its way.

use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::batch::{Batch, RefusedPoint};
use crate::cli::client::{Client, Payload, Refused};

const IN_FLIGHT: usize = 2;
/// How long one batch waits, all in all, for a server that asks to come back later.
const PATIENCE: Duration = Duration::from_secs(600);
/// The pause where the server does not say how long.
const PAUSE: Duration = Duration::from_secs(1);

/// A batch, its number, and the unit of its times.
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) precision: String,
    pub(super) batch: Batch,
}

/// The number of a batch, and its refused points or why it could not be sent.
pub(super) type Answer = (u64, anyhow::Result<Vec<RefusedPoint>>);

/// Sends batches from threads of its own.
pub(super) struct Sender {
    jobs: SyncSender<Job>,
    answers: Receiver<Answer>,
    threads: Vec<JoinHandle<()>>,
}

impl Sender {
    pub(super) fn start(client: Client, db: &str) -> Self {
        // No room in the channel: a job waits with its maker until a thread is free.
        let (jobs, queue) = mpsc::sync_channel::<Job>(0);
        let (answered, answers) = mpsc::channel();
        let (client, queue) = (Arc::new(client), Arc::new(Mutex::new(queue)));
        let threads = (0..IN_FLIGHT).map(|_| {
            let (client, queue, answered) =
                (Arc::clone(&client), Arc::clone(&queue), answered.clone());
            let db = db.to_owned();
            std::thread::spawn(move || work(&client, &db, &queue, &answered))
        });
        let threads = threads.collect();
        Sender { jobs, answers, threads }
    }

    /// Hands a batch over once a request may start; `false` if there is nobody left to take it,
    /// because requests failed.
    pub(super) fn send(&self, job: Job) -> bool {
        self.jobs.send(job).is_ok()
    }

    /// The answers that are there by now.
    pub(super) fn answers(&self) -> impl Iterator<Item = Answer> + '_ {
        self.answers.try_iter()
    }

    /// Waits for the requests in flight and returns their answers.
    pub(super) fn finish(self) -> impl Iterator<Item = Answer> {
        let Sender { jobs, answers, threads } = self;
        drop(jobs);
        for thread in threads {
            // A thread that panicked has said so on stderr; its batch stays unanswered.
            let _ = thread.join();
        }
        answers.into_iter()
    }
}

/// Delivers one batch after another, until there are no more or one cannot be delivered.
fn work(
    client: &Client,
    db: &str,
    queue: &Mutex<Receiver<Job>>,
    answered: &std::sync::mpsc::Sender<Answer>,
) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { break };
        let answer = deliver(client, db, &job);
        let goes_on = answer.is_ok();
        if answered.send((job.number, answer)).is_err() || !goes_on {
            break;
        }
    }
}

/// Sends a batch until the server takes it or says no.
fn deliver(client: &Client, db: &str, job: &Job) -> anyhow::Result<Vec<RefusedPoint>> {
    if job.batch.body.is_empty() {
        return Ok(Vec::new());
    }
    let query = [("db", db), ("precision", job.precision.as_str())];
    let mut waited = Duration::ZERO;
    loop {
        let payload = Payload::Text(job.batch.body.clone());
        let sent = client.send("POST", "/api/v3/write_lp", &query, payload);
        let Err(error) = sent else { return Ok(Vec::new()) };
        match error.downcast::<Refused>()? {
            busy if busy.status == 503 && waited < PATIENCE => {
                let pause = busy.retry_after.unwrap_or(PAUSE);
                std::thread::park_timeout(pause);
                waited += pause;
            }
            Refused { lines, .. } if !lines.is_empty() => {
                let place = |line| job.batch.place_of(line);
                let refused = lines
                    .into_iter()
                    .map(|(line, reason)| RefusedPoint { place: place(line), reason });
                return Ok(refused.collect());
            }
            refused => return Err(refused.into()),
        }
    }
}
