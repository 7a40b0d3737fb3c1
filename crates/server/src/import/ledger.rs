//! What was sent, and how far each file is stored without a gap.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::batch::{Batch, RefusedPoint};

/// Refused points that are remembered; further ones are counted.
const REMEMBERED: usize = 20;

/// How far one file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileProgress {
    /// Lines or rows from its start that the server has answered, all of them.
    pub(super) done: u64,
    /// Points among them, refused ones included.
    pub(super) points: u64,
    /// Points that were refused.
    pub(super) refused: u64,
    /// Whether there is nothing more in the file.
    pub(super) is_complete: bool,
}

/// Batches on their way and those that came through; answers may come in any order.
#[derive(Debug)]
pub(super) struct Ledger {
    files: Vec<FileProgress>,
    /// In the order of sending; the first one has number `first`.
    pending: VecDeque<Pending>,
    first: u64,
    remembered: Vec<(usize, RefusedPoint)>,
}

#[derive(Debug)]
struct Pending {
    file: usize,
    end: u64,
    points: u64,
    ends_file: bool,
    is_answered: bool,
    refused: Vec<RefusedPoint>,
}

impl Ledger {
    pub(super) fn new(files: Vec<FileProgress>) -> Self {
        Ledger { files, pending: VecDeque::new(), first: 0, remembered: Vec::new() }
    }

    pub(super) fn files(&self) -> &[FileProgress] {
        &self.files
    }

    /// The first refused points, each with the position of its file.
    pub(super) fn remembered(&self) -> &[(usize, RefusedPoint)] {
        &self.remembered
    }

    /// Notes a batch that is about to be sent and returns its number.
    pub(super) fn send(&mut self, file: usize, batch: &mut Batch) -> u64 {
        let refused = std::mem::take(&mut batch.refused);
        let points = batch.points + refused.len() as u64;
        self.push(Pending {
            file,
            end: batch.end,
            points,
            ends_file: false,
            is_answered: false,
            refused,
        })
    }

    /// Notes that a file has no more batches.
    pub(super) fn end_file(&mut self, file: usize) {
        let (end, refused) = (0, Vec::new());
        self.push(Pending { file, end, points: 0, ends_file: true, is_answered: true, refused });
        self.settle();
    }

    /// Notes the answer to a batch.
    pub(super) fn answer(&mut self, number: u64, refused: Vec<RefusedPoint>) {
        let pending = &mut self.pending[(number - self.first) as usize];
        pending.is_answered = true;
        pending.refused.extend(refused);
        self.settle();
    }

    fn push(&mut self, pending: Pending) -> u64 {
        self.pending.push_back(pending);
        self.first + self.pending.len() as u64 - 1
    }

    fn settle(&mut self) {
        while self.pending.front().is_some_and(|pending| pending.is_answered) {
            let Some(mut settled) = self.pending.pop_front() else { break };
            self.first += 1;
            let file = &mut self.files[settled.file];
            file.done = file.done.max(settled.end);
            file.points += settled.points;
            file.refused += settled.refused.len() as u64;
            file.is_complete |= settled.ends_file;
            settled.refused.sort_by_key(|refused| refused.place);
            let room = REMEMBERED - self.remembered.len();
            let remembered = settled.refused.into_iter().take(room);
            self.remembered.extend(remembered.map(|refused| (settled.file, refused)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::batch::Places;

    fn batch(end: u64, points: u64) -> Batch {
        Batch { body: Vec::new(), points, end, places: Places::LinesFrom(1), refused: Vec::new() }
    }

    #[test]
    fn a_file_is_as_far_as_its_first_gap() {
        let mut ledger = Ledger::new(vec![FileProgress::default()]);
        let first = ledger.send(0, &mut batch(10, 9));
        let second = ledger.send(0, &mut batch(20, 10));
        let refused = RefusedPoint { place: 13, reason: "no".to_owned() };
        ledger.answer(second, vec![refused.clone()]);
        ledger.end_file(0);
        assert_eq!(ledger.files()[0], FileProgress::default());
        assert_eq!(ledger.remembered(), []);
        ledger.answer(first, Vec::new());
        let whole = FileProgress { done: 20, points: 19, refused: 1, is_complete: true };
        assert_eq!(ledger.files()[0], whole);
        assert_eq!(ledger.remembered(), [(0, refused)]);
    }
}
