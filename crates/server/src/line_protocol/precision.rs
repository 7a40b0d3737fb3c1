//! Units of the times in a request.

use std::str::FromStr;

/// Unit of the times in a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 10⁻⁹ s; what the v1 and v2 routes assume.
    #[default]
    Nanosecond,
    /// 10⁻⁶ s.
    Microsecond,
    /// 10⁻³ s.
    Millisecond,
    /// Seconds.
    Second,
    /// Minutes; v1 only.
    Minute,
    /// Hours; v1 only.
    Hour,
    /// Guessed per time from its magnitude, as InfluxDB 3 does when v3 names no precision.
    Auto,
}

impl Precision {
    /// Nanoseconds since the epoch of a time in this unit; `None` if they do not fit.
    pub fn to_nanos(self, time: i64) -> Option<i64> {
        time.checked_mul(self.nanos_per_unit(time))
    }

    fn nanos_per_unit(self, time: i64) -> i64 {
        match self {
            Precision::Nanosecond => 1,
            Precision::Microsecond => 1_000,
            Precision::Millisecond => 1_000_000,
            Precision::Second => 1_000_000_000,
            Precision::Minute => 60_000_000_000,
            Precision::Hour => 3_600_000_000_000,
            Precision::Auto => Precision::guess(time).nanos_per_unit(time),
        }
    }

    /// The unit in which `time` lies between 1811 and 2128 as far as possible.
    ///
    /// Source: `guess_precision` of InfluxDB 3 Core; the same bounds, so that the same clients
    /// get the same times.
    fn guess(time: i64) -> Precision {
        match time.unsigned_abs() {
            0..5_000_000_000 => Precision::Second,
            5_000_000_000..5_000_000_000_000 => Precision::Millisecond,
            5_000_000_000_000..5_000_000_000_000_000 => Precision::Microsecond,
            _ => Precision::Nanosecond,
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    /// Reads the short names of v1 and v2 and the long ones of v3.
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "n" | "ns" | "nanosecond" => Precision::Nanosecond,
            "u" | "us" | "µ" | "μ" | "µs" | "μs" | "microsecond" => Precision::Microsecond,
            "ms" | "millisecond" => Precision::Millisecond,
            "s" | "second" => Precision::Second,
            "m" | "minute" => Precision::Minute,
            "h" | "hour" => Precision::Hour,
            "auto" => Precision::Auto,
            _ => {
                return Err(format!(
                    "unknown precision {text:?}; use ns, us, ms, s, m, h, nanosecond, \
                     microsecond, millisecond, second or auto"
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        let spellings = [
            (Precision::Nanosecond, &["n", "ns", "nanosecond"][..]),
            (Precision::Microsecond, &["u", "us", "µ", "μ", "microsecond"]),
            (Precision::Millisecond, &["ms", "millisecond"]),
            (Precision::Second, &["s", "second"]),
            (Precision::Minute, &["m"]),
            (Precision::Hour, &["h"]),
            (Precision::Auto, &["auto"]),
        ];
        for (precision, names) in spellings {
            for name in names {
                assert_eq!(name.parse(), Ok(precision), "{name}");
            }
        }
        assert!("fortnight".parse::<Precision>().unwrap_err().contains("fortnight"));
        assert!("".parse::<Precision>().is_err());
    }

    #[test]
    fn auto_goes_by_magnitude() {
        let second = 1_704_067_200;
        for scale in [1, 1_000, 1_000_000, 1_000_000_000] {
            let nanos = Precision::Auto.to_nanos(second * scale);
            assert_eq!(nanos, Some(second * 1_000_000_000), "{scale}");
            assert_eq!(Precision::Auto.to_nanos(-second * scale), nanos.map(|n| -n));
        }
        assert_eq!(Precision::Auto.to_nanos(4_999_999_999), Some(4_999_999_999_000_000_000));
        assert_eq!(Precision::Auto.to_nanos(5_000_000_000), Some(5_000_000_000_000_000));
        assert_eq!(Precision::Auto.to_nanos(i64::MIN), Some(i64::MIN));
    }

    #[test]
    fn scaling_never_wraps() {
        assert_eq!(Precision::Second.to_nanos(i64::MAX), None);
        assert_eq!(Precision::Hour.to_nanos(2), Some(7_200_000_000_000));
        assert_eq!(Precision::Minute.to_nanos(-1), Some(-60_000_000_000));
    }
}
