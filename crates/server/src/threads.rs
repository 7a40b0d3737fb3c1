//! Threads by urgency, so that requests go first when processors are scarce.
//!
//! | threads | do |
//! |---|---|
//! | of the process's main runtime | accept, read and answer requests, parse and store points, flush |
//! | [`Threads::queries`] | plan and run queries: a heavy one keeps no write waiting |
//! | [`Threads::background`] | refresh and compact, at a lower priority than the others |

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};

/// SQL may nest deeply.
const STACK_BYTES: usize = 16 << 20;
/// How much nicer background threads are than others, in the steps of `nice`.
#[cfg(target_os = "linux")]
const BACKGROUND_NICENESS: i32 = 10;

/// The runtimes beside the main one; stopped when dropped, whatever they do.
#[derive(Debug)]
pub struct Threads {
    queries: Option<Runtime>,
    background: Option<Runtime>,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// The system gives no more threads.
    pub fn start() -> anyhow::Result<Self> {
        let queries = builder("highwater-query").build();
        let background = builder("highwater-back").on_thread_start(yield_to_others).build();
        Ok(Threads {
            queries: Some(queries.context("could not start the threads of queries")?),
            background: Some(background.context("could not start the background threads")?),
        })
    }

    /// For queries.
    ///
    /// # Panics
    /// Never before it is dropped.
    pub fn queries(&self) -> Handle {
        self.queries.as_ref().expect("runtimes live as long as this").handle().clone()
    }

    /// For what can wait.
    ///
    /// # Panics
    /// Never before it is dropped.
    pub fn background(&self) -> Handle {
        self.background.as_ref().expect("runtimes live as long as this").handle().clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Waiting for threads is not allowed where futures run.
        self.queries.take().into_iter().for_each(Runtime::shutdown_background);
        self.background.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// The main runtime.
///
/// # Errors
/// The system gives no threads.
pub fn main_runtime() -> anyhow::Result<Runtime> {
    builder("highwater").build().context("could not start the worker threads")
}

fn builder(name: &str) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.enable_all().thread_stack_size(STACK_BYTES).thread_name(name);
    builder
}

/// On Linux, niceness belongs to the thread that asks for it.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(BACKGROUND_NICENESS) {
        tracing::warn!(%error, "background work runs at the priority of everything else");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn background_threads_are_nicer_than_others() {
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let threads = Threads::start().unwrap();
        let main = main_runtime().unwrap();
        let own = niceness();
        let of =
            |handle: Handle| main.block_on(async { handle.spawn(async move { niceness() }).await });
        assert_eq!(of(threads.queries()).unwrap(), own);
        assert_eq!(of(threads.background()).unwrap(), (own + BACKGROUND_NICENESS).min(19));
        let blocking = main.block_on(threads.background().spawn_blocking(niceness)).unwrap();
        assert_eq!(blocking, (own + BACKGROUND_NICENESS).min(19));
    }
}
