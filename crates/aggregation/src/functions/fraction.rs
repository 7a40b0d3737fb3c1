//! The fraction of a percentile, in its long and its short spelling.

use std::fmt;

/// A fraction of a whole, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fraction(u64);

impl Fraction {
    /// One half, of the median.
    pub const HALF: Fraction = Fraction(0.5f64.to_bits());

    /// The fraction of that value; `None` unless it is from 0 to 1.
    pub fn new(value: f64) -> Option<Self> {
        // Adding 0.0 makes -0.0 positive.
        (0.0..=1.0).contains(&value).then(|| Fraction((value + 0.0).to_bits()))
    }

    /// The value, from 0 to 1.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// What it is short for: `p5` is 0.05, `p50` 0.5, `p100` 1; more digits that start with a 9
    /// come after the point, so `p999` is 0.999; and `p12_5` is 0.125.
    pub(super) fn of_short(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('p')?;
        let (percent, more) = digits.split_once('_').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if percent.is_empty() || !is_number(percent) || !is_number(more) {
            return None;
        }
        match percent.len() {
            1 | 2 => Fraction::after_point(&format!("{percent:0>2}{more}")),
            _ if percent == "100" && digits == percent => Fraction::new(1.0),
            _ if percent.starts_with('9') && digits == percent => Fraction::after_point(percent),
            _ => None,
        }
    }

    fn after_point(digits: &str) -> Option<Self> {
        Fraction::new(format!("0.{digits}").parse().ok()?)
    }

    /// The short spelling, which is part of a name.
    pub(super) fn short(self) -> String {
        let text = self.to_string();
        let Some((_, digits)) = text.split_once('.') else {
            return if self.get() == 0.0 { "p0".to_owned() } else { "p100".to_owned() };
        };
        let (percent, more) = digits.split_at(digits.len().min(2));
        let percent = format!("{percent:0<2}");
        match (percent.trim_start_matches('0'), more) {
            ("", "") => "p0".to_owned(),
            (percent, "") => format!("p{percent}"),
            (percent, more) if percent.starts_with('9') && percent.len() == 2 => {
                format!("p{percent}{more}")
            }
            ("", more) => format!("p0_{more}"),
            (percent, more) => format!("p{percent}_{more}"),
        }
    }
}

impl fmt::Display for Fraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_read_as_they_are_written() {
        for (short, value) in [
            ("p0", 0.0),
            ("p5", 0.05),
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p999", 0.999),
            ("p9999", 0.9999),
            ("p975", 0.975),
            ("p100", 1.0),
            ("p12_5", 0.125),
            ("p0_1", 0.001),
            ("p9_5", 0.095),
        ] {
            let fraction = Fraction::new(value).unwrap();
            assert_eq!(fraction.short(), short);
            assert_eq!(Fraction::of_short(short), Some(fraction), "{short}");
        }
        assert_eq!(Fraction::of_short("p95_5"), Fraction::new(0.955));
        for other in ["p", "p101", "p250", "peak", "p_5", "p5x", "p100_1", "p1.5", "99"] {
            assert_eq!(Fraction::of_short(other), None, "{other}");
        }
        for outside in [-0.1, 1.1, f64::NAN] {
            assert_eq!(Fraction::new(outside), None);
        }
    }
}
