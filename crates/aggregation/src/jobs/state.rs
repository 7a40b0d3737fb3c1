//! The states of a job and the moves between them. Only decides.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It has been asked for.
    Pending,
    /// It finds out how much there is to do.
    Creating,
    /// It reads history, batch by batch.
    Backfilling,
    /// Everything is read, and what is stored is joined.
    Optimizing,
    /// Everything is done.
    Completed,
    /// A step failed too often.
    Failed,
    /// Somebody stopped it for a while.
    Paused,
    /// Somebody ended it.
    Cancelled,
}

impl JobState {
    /// All of them, in the order of a job's life.
    pub const ALL: [JobState; 8] = [
        JobState::Pending,
        JobState::Creating,
        JobState::Backfilling,
        JobState::Optimizing,
        JobState::Completed,
        JobState::Failed,
        JobState::Paused,
        JobState::Cancelled,
    ];

    /// One word, for tables, requests and metrics.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Pending => "pending",
            JobState::Creating => "creating",
            JobState::Backfilling => "backfilling",
            JobState::Optimizing => "optimizing",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Paused => "paused",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        JobState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the background works on such a job.
    pub(crate) fn is_running(self) -> bool {
        self < JobState::Completed
    }

    /// Whether nothing happens any more unless somebody asks for it again.
    pub(crate) fn is_ended(self) -> bool {
        matches!(self, JobState::Completed | JobState::Failed | JobState::Cancelled)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// What the state stands for is done.
    Advance,
    /// A step failed for good.
    Fail,
    /// It is to wait.
    Pause,
    /// It is to go on after a pause.
    Resume,
    /// It is to go on after a failure or a cancellation.
    Retry,
    /// It is to end.
    Cancel,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Move::Advance => "go on to another state",
            Move::Fail => "fail",
            Move::Pause => "be paused",
            Move::Resume => "be resumed",
            Move::Retry => "be tried again",
            Move::Cancel => "be cancelled",
        })
    }
}

/// A move that a state does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {state} cannot {wanted}")]
pub struct MoveError {
    /// Where the job stands.
    pub state: JobState,
    /// What was asked for.
    pub wanted: Move,
}

/// The state after a move; `stopped_in` is the one in which a job that stands still stopped.
///
/// # Errors
/// [`MoveError`] if the state does not allow the move.
pub(crate) fn after(
    state: JobState,
    stopped_in: Option<JobState>,
    wanted: Move,
) -> Result<JobState, MoveError> {
    use JobState::{
        Backfilling, Cancelled, Completed, Creating, Failed, Optimizing, Paused, Pending,
    };
    Ok(match (state, wanted) {
        (Pending, Move::Advance) => Creating,
        (Creating, Move::Advance) => Backfilling,
        (Backfilling, Move::Advance) => Optimizing,
        (Optimizing, Move::Advance) => Completed,
        (Pending | Creating | Backfilling | Optimizing | Paused, Move::Fail) => Failed,
        (Creating | Backfilling, Move::Pause) => Paused,
        (Paused, Move::Resume) | (Failed | Cancelled, Move::Retry) => {
            stopped_in.unwrap_or(Creating)
        }
        (Pending | Creating | Backfilling | Optimizing | Paused | Failed, Move::Cancel) => {
            Cancelled
        }
        _ => return Err(MoveError { state, wanted }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Per state: what it becomes by each move, `-` where that is not allowed. What stands still
    /// stopped while it was backfilling.
    const TABLE: &str = "
        state        advance      fail    pause   resume       retry        cancel
        pending      creating     failed  -       -            -            cancelled
        creating     backfilling  failed  paused  -            -            cancelled
        backfilling  optimizing   failed  paused  -            -            cancelled
        optimizing   completed    failed  -       -            -            cancelled
        completed    -            -       -       -            -            -
        failed       -            -       -       -            backfilling  cancelled
        paused       -            failed  -       backfilling  -            cancelled
        cancelled    -            -       -       -            backfilling  -
    ";
    const MOVES: [Move; 6] =
        [Move::Advance, Move::Fail, Move::Pause, Move::Resume, Move::Retry, Move::Cancel];

    #[test]
    fn every_state_allows_what_the_table_says() {
        let mut rows = 0;
        for line in TABLE.trim().lines().skip(1) {
            let mut words = line.split_whitespace();
            let state = JobState::parse(words.next().unwrap()).unwrap();
            for (wanted, becomes) in MOVES.into_iter().zip(words) {
                let found = after(state, Some(JobState::Backfilling), wanted);
                let expected = JobState::parse(becomes).ok_or(MoveError { state, wanted });
                assert_eq!(found, expected, "{state}: {wanted}");
            }
            rows += 1;
        }
        assert_eq!(rows, JobState::ALL.len());
    }

    #[test]
    fn a_refused_move_says_why() {
        let refused = after(JobState::Completed, None, Move::Pause).unwrap_err();
        assert_eq!(refused.to_string(), "a job that is completed cannot be paused");
    }

    #[test]
    fn only_some_states_need_the_background() {
        let names = |wanted: fn(JobState) -> bool| {
            let found = JobState::ALL.into_iter().filter(|state| wanted(*state));
            found.map(JobState::name).collect::<Vec<_>>()
        };
        let running = ["pending", "creating", "backfilling", "optimizing"];
        assert_eq!(names(JobState::is_running), running);
        assert_eq!(names(JobState::is_ended), ["completed", "failed", "cancelled"]);
    }
}
