//! The type of a CSV column, decided from what stands in it.

use std::fmt;

use super::points::Value;

/// Type of a CSV column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CellType {
    Integer,
    Unsigned,
    Float,
    Boolean,
    String,
}

impl CellType {
    /// From the narrowest to the widest; text is always a string.
    const ALL: [CellType; 5] = [
        CellType::Integer,
        CellType::Unsigned,
        CellType::Float,
        CellType::Boolean,
        CellType::String,
    ];

    /// The narrowest type that all these texts have; none if there are no texts.
    pub(super) fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut fitting = None;
        for text in texts {
            let fitting = fitting.get_or_insert_with(|| CellType::ALL.to_vec());
            fitting.retain(|cell_type| cell_type.read(text).is_some());
        }
        fitting.and_then(|fitting| fitting.first().copied())
    }

    /// The value of a text; none if it is not of this type.
    pub(super) fn read(self, text: &str) -> Option<Value<'_>> {
        let bare = text.trim();
        match self {
            CellType::Integer => bare.parse().ok().map(Value::Integer),
            CellType::Unsigned => bare.parse().ok().map(Value::Unsigned),
            CellType::Float => bare.parse().ok().map(Value::Float),
            CellType::Boolean if bare.eq_ignore_ascii_case("true") => Some(Value::Boolean(true)),
            CellType::Boolean if bare.eq_ignore_ascii_case("false") => Some(Value::Boolean(false)),
            CellType::Boolean => None,
            CellType::String => Some(Value::String(text)),
        }
    }
}

impl fmt::Display for CellType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CellType::Integer => "integer",
            CellType::Unsigned => "unsigned",
            CellType::Float => "float",
            CellType::Boolean => "boolean",
            CellType::String => "string",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_type_that_fits_all() {
        let of = |texts: &[&str]| CellType::of(texts.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["1", "-2"]), Some(CellType::Integer));
        assert_eq!(of(&["1", "18446744073709551615"]), Some(CellType::Unsigned));
        assert_eq!(of(&["-1", "18446744073709551615"]), Some(CellType::Float));
        assert_eq!(of(&["1", "2.5"]), Some(CellType::Float));
        assert_eq!(of(&["true", "False"]), Some(CellType::Boolean));
        assert_eq!(of(&["1", "true"]), Some(CellType::String));
        assert_eq!(of(&["2.5", "n/a"]), Some(CellType::String));
    }
}
