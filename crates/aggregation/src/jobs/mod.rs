//! Jobs: first builds of aggregates over history, and changed or repeated ones built aside.
//!
//! ```text
//! pending ─► creating ─► backfilling ─► optimizing ─► completed
//!               │  ▲          │  ▲
//!               ▼  │          ▼  │        any that has not ended ─► failed, cancelled
//!              paused        paused       failed, cancelled ─► the state it stopped in
//! ```
//!
//! A job is a document beside those of its aggregate, written in the same commit as the batch that it
//! reports. What it still has to do is derived from staleness like any refresh; the document only says
//! who does it: up to [`Job::until`](job::Job) what is not stored yet belongs to the job, everything
//! else to the schedule. Reading order: [`state`] (which moves there are), [`job`] (the document), [`beginning`]
//! (what a new one has to do), //! [`newest`] (where a batch ends), [`batch`] (what a batch computes), [`work`] (one step of a job),
//! [`control`] (pause, resume, cancel, retry, backfill), [`view`] (a job from outside).

pub(crate) mod batch;
pub(crate) mod beginning;
pub(crate) mod control;
pub(crate) mod job;
pub(crate) mod newest;
pub(crate) mod state;
pub(crate) mod view;
pub(crate) mod work;

pub(crate) use beginning::{first_job, rebuild};
pub(crate) use job::{Job, reserved, retired, unused_id};
