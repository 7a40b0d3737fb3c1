//! What a caller may do about an error.

use std::fmt;

/// The small question every error of every crate answers through `kind()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input is wrong; fix it and send it again.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// It contradicts what exists; look before trying again.
    Conflict,
    /// Nothing is wrong with the request; retry later.
    Unavailable,
    /// Stored bytes are damaged; an operator must look.
    Corrupt,
    /// The request is sound, its computation has no representable answer (an integer overflow).
    Computation,
    /// A defect of Highwater.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Invalid => "invalid",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Conflict => "conflict",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Corrupt => "corrupt",
            ErrorKind::Computation => "computation",
            ErrorKind::Internal => "internal",
        })
    }
}
