//! A part of a file, on its way to the server.

/// What a batch is made up to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSize {
    /// Lines or rows.
    pub(crate) lines: usize,
    /// Bytes of line protocol, about.
    pub(crate) bytes: usize,
}

/// Where the points of a batch come from.
#[derive(Clone, Debug)]
pub(crate) enum Places {
    /// The lines of the file from this one on, counted from 1.
    LinesFrom(u64),
    /// Per point: the line of the body on which it starts, ascending, and its line or row in the file.
    Points(Vec<(u32, u64)>),
}

/// A point that is not stored, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedPoint {
    /// Its line or row in the file, counted from 1.
    pub(crate) place: u64,
    /// A sentence without a stop.
    pub(crate) reason: String,
}

/// Points that are sent in one request.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// Line protocol.
    pub(crate) body: Vec<u8>,
    /// How many points the body holds.
    pub(crate) points: u64,
    /// How many lines or rows of the file precede what follows this batch.
    pub(crate) end: u64,
    /// For messages.
    pub(crate) places: Places,
    /// What did not even become line protocol.
    pub(crate) refused: Vec<RefusedPoint>,
}

impl Batch {
    /// The line or row of the file that became line `line` of the body, counted from 1.
    pub(crate) fn place_of(&self, line: u64) -> u64 {
        match &self.places {
            Places::LinesFrom(first) => first + line.saturating_sub(1),
            Places::Points(points) => {
                let after = points.partition_point(|(start, _)| u64::from(*start) <= line);
                after.checked_sub(1).map_or(0, |at| points[at].1)
            }
        }
    }
}

/// A file that is read batch by batch.
pub(crate) trait Source {
    /// The next batch; `None` at the end of the file.
    ///
    /// # Errors
    /// The file cannot be read, or is not what it seemed.
    fn next(&mut self) -> anyhow::Result<Option<Batch>>;
}
