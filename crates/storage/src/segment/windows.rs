//! Windows: which days share a segment.
//!
//! A day with many rows has segments of its own, so that late points rewrite one day and expiry
//! drops whole files. Neighbouring days with few rows share one; else some years of hourly points
//! would be thousands of tiny files.
//!
//! ```text
//! rows of days    3   2   4  | 900 | 1   2 | 950 | 870 | 5
//! windows        └─────────┘  └───┘ └─────┘ └───┘ └───┘ └─┘
//! ```

/// Puts neighbours together as long as they have at most `window_rows` together. Parts come in
/// order of time, each with its rows.
pub(crate) fn windows<T>(
    parts: impl IntoIterator<Item = (T, u64)>,
    window_rows: u64,
) -> Vec<Vec<T>> {
    let mut windows: Vec<Vec<T>> = Vec::new();
    let mut rows_of_last = 0u64;
    for (part, rows) in parts {
        let together = rows_of_last.saturating_add(rows);
        match windows.last_mut() {
            Some(last) if together <= window_rows => {
                last.push(part);
                rows_of_last = together;
            }
            _ => {
                windows.push(vec![part]);
                rows_of_last = rows;
            }
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_rows_share_a_window_and_many_do_not() {
        let days = [3, 2, 4, 900, 1, 2, 950, 870, 5];
        let found = windows(days.map(|rows| (rows, rows)), 100);
        let expected: [&[u64]; 6] = [&[3, 2, 4], &[900], &[1, 2], &[950], &[870], &[5]];
        assert_eq!(found, expected);
        assert_eq!(windows([(1, 60), (2, 40), (3, 1)], 100), [vec![1, 2], vec![3]]);
        assert_eq!(windows([(1, 1), (2, 1)], 0), [[1], [2]]);
    }
}
