//! Buckets as text: `5m`, `1w`, `1w sunday`, `1d +6h Europe/Berlin`.

use std::fmt;
use std::str::FromStr;

use chrono_tz::Tz;

use super::local::{LocalBucket, LocalWidth};
use super::{Bucket, FIRST_MONDAY};
use crate::time::{NANOS_PER_DAY, NANOS_PER_HOUR, NANOS_PER_MINUTE, NANOS_PER_SEC};

/// The word for weeks that start on Sundays.
const SUNDAY: &str = "sunday";
const NANOS_PER_WEEK: i64 = 7 * NANOS_PER_DAY;
/// From the epoch to the first Sunday, 1970-01-04.
const FIRST_SUNDAY: i64 = 3 * NANOS_PER_DAY;

/// Why a text is not a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// Not a number followed by a known unit.
    #[error(
        "{0:?} is not a duration; write a number and one of ns, us, ms, s, m, h, d, w, mo, q, y"
    )]
    Unreadable(String),
    /// Zero, negative or beyond the range of time.
    #[error("{0:?} must be longer than zero and shorter than 292 years")]
    OutOfRange(String),
    /// No time zone has this name.
    #[error("{0:?} is no time zone; write a name like Europe/Berlin or UTC")]
    NoSuchZone(String),
    /// A width that no civil day is made of.
    #[error("{0} neither divides a day nor is made of whole days, so it cannot have a time zone")]
    NotInAZone(Bucket),
    /// Only weeks start on a day of the week.
    #[error("{0} cannot start on Sundays; only whole weeks like 1w can")]
    NotOfWeeks(Bucket),
    /// An offset has to be shorter than what it moves.
    #[error("{0} cannot begin {1} later: an offset is shorter than the width, and than a day")]
    OffsetTooLong(Bucket, String),
}

/// The parts of a bucket's text, as rules have them under keys of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketWords {
    /// Such as `1d`.
    pub width: String,
    /// Whether weeks start on Sundays.
    pub from_sunday: bool,
    /// Such as `6h`.
    pub offset: Option<String>,
    /// Such as `Europe/Berlin`.
    pub zone: Option<String>,
}

impl BucketWords {
    /// The bucket that they describe.
    ///
    /// # Errors
    /// [`BucketError`], with the word that is wrong.
    pub fn bucket(&self) -> Result<Bucket, BucketError> {
        let mut bucket = width_of(&self.width)?;
        if self.from_sunday {
            bucket = bucket.from_sundays()?;
        }
        if let Some(zone) = &self.zone {
            bucket = bucket.in_zone(zone_of(zone)?)?;
        }
        match &self.offset {
            Some(offset) => bucket.later_by(offset_of(offset)?),
            None => Ok(bucket),
        }
    }

    /// The words of a text; `None` if there are too many or they are in another order.
    fn of_text(text: &str) -> Option<Self> {
        let mut words = text.split(' ').peekable();
        let width = words.next()?.to_owned();
        let from_sunday = words.next_if_eq(&SUNDAY).is_some();
        let offset = words.next_if(|word| word.starts_with('+'));
        let offset = offset.map(|word| word[1..].to_owned());
        let zone = words.next().map(str::to_owned);
        words.next().is_none().then_some(BucketWords { width, from_sunday, offset, zone })
    }
}

impl Bucket {
    /// The parts of its text.
    pub fn words(self) -> BucketWords {
        BucketWords::of_text(&self.to_string()).expect("a bucket prints as it is read")
    }

    /// The same widths by the clocks of a zone.
    ///
    /// # Errors
    /// [`BucketError::NotInAZone`] for widths like `7h` and `36h`.
    pub fn in_zone(self, zone: Tz) -> Result<Bucket, BucketError> {
        let (width, offset) = match self {
            _ if zone == Tz::UTC => return Ok(self),
            Bucket::Fixed { width, offset }
                if NANOS_PER_DAY % width == 0 && width < NANOS_PER_DAY =>
            {
                (LocalWidth::Time(width), offset)
            }
            Bucket::Fixed { width, offset } if width % NANOS_PER_DAY == 0 => {
                let (count, anchor) = (width / NANOS_PER_DAY, offset / NANOS_PER_DAY);
                let days = LocalWidth::Days { count: count as u32, anchor: anchor as u32 };
                (days, offset % NANOS_PER_DAY)
            }
            Bucket::Fixed { .. } => return Err(BucketError::NotInAZone(self)),
            Bucket::Months(months) => (LocalWidth::Months(months), 0),
            Bucket::Local(local) => (local.width, local.offset),
        };
        Ok(Bucket::Local(LocalBucket { width, offset, zone }))
    }

    /// The same widths, each bucket beginning `offset` nanoseconds later: in civil time if there is a
    /// zone.
    ///
    /// # Errors
    /// [`BucketError::OffsetTooLong`] if it is not shorter than the width, or than a day.
    pub fn later_by(self, offset: i64) -> Result<Bucket, BucketError> {
        let most = match self {
            Bucket::Fixed { width, .. } => width.min(NANOS_PER_DAY),
            Bucket::Local(LocalBucket { width: LocalWidth::Time(width), .. }) => width,
            Bucket::Months(_) | Bucket::Local(_) => NANOS_PER_DAY,
        };
        if !(0..most).contains(&offset) {
            return Err(BucketError::OffsetTooLong(self, duration(offset)));
        }
        Ok(match self {
            _ if offset == 0 => self,
            Bucket::Fixed { width, offset: own } => {
                Bucket::Fixed { width, offset: (own + offset) % width }
            }
            Bucket::Months(months) => {
                let width = LocalWidth::Months(months);
                Bucket::Local(LocalBucket { width, offset, zone: Tz::UTC })
            }
            Bucket::Local(local) => {
                Bucket::Local(LocalBucket { offset: (local.offset + offset) % most, ..local })
            }
        })
    }

    /// Weeks that start on Sundays instead of Mondays.
    ///
    /// # Errors
    /// [`BucketError::NotOfWeeks`] for other widths.
    pub fn from_sundays(self) -> Result<Bucket, BucketError> {
        match self {
            Bucket::Fixed { width, offset }
                if width % NANOS_PER_WEEK == 0 && offset == FIRST_MONDAY % width =>
            {
                Ok(Bucket::Fixed { width, offset: FIRST_SUNDAY % width })
            }
            _ => Err(BucketError::NotOfWeeks(self)),
        }
    }
}

/// A duration as written in rules: an amount and its unit.
pub(super) fn split_duration(text: &str) -> Result<(i64, &str), BucketError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (amount, unit) = text.split_at(digits);
    if amount.is_empty() || unit.is_empty() {
        return Err(BucketError::Unreadable(text.to_owned()));
    }
    let amount = amount.parse().map_err(|_| BucketError::OutOfRange(text.to_owned()))?;
    Ok((amount, unit))
}

/// Nanoseconds of a unit of fixed length.
pub(super) fn nanos_of_unit(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SEC,
        "m" => NANOS_PER_MINUTE,
        "h" => NANOS_PER_HOUR,
        "d" => NANOS_PER_DAY,
        "w" => NANOS_PER_WEEK,
        _ => return None,
    })
}

/// A width alone, like `5m` or `1w`.
pub(super) fn width_of(text: &str) -> Result<Bucket, BucketError> {
    let (amount, unit) = split_duration(text)?;
    let out_of_range = || BucketError::OutOfRange(text.to_owned());
    if let Some(months) = match unit {
        "mo" => Some(1),
        "q" => Some(3),
        "y" => Some(12),
        _ => None,
    } {
        let months = amount.checked_mul(months).filter(|m| (1..=12 * 292).contains(m));
        return Ok(Bucket::Months(months.ok_or_else(out_of_range)? as u32));
    }
    let nanos = nanos_of_unit(unit).ok_or_else(|| BucketError::Unreadable(text.to_owned()))?;
    let width = amount.checked_mul(nanos).filter(|w| *w > 0).ok_or_else(out_of_range)?;
    let offset = if unit == "w" { FIRST_MONDAY.rem_euclid(width) } else { 0 };
    Ok(Bucket::Fixed { width, offset })
}

/// Nanoseconds of an offset, like `6h`.
///
/// # Errors
/// [`BucketError`] if it is no duration of fixed length.
pub fn offset_of(text: &str) -> Result<i64, BucketError> {
    match width_of(text)? {
        Bucket::Fixed { width, .. } => Ok(width),
        _ => Err(BucketError::Unreadable(text.to_owned())),
    }
}

/// The zone of that name.
///
/// # Errors
/// [`BucketError::NoSuchZone`].
pub fn zone_of(name: &str) -> Result<Tz, BucketError> {
    name.parse().map_err(|_| BucketError::NoSuchZone(name.to_owned()))
}

impl FromStr for Bucket {
    type Err = BucketError;

    /// Reads `10s`, `5m`, `1h`, `1d`, `1w` (from Monday), `1mo`, `1q`, `1y`; after it may follow
    /// `sunday`, an offset like `+6h` and a time zone, in this order.
    ///
    /// `7d` counts seven days from the epoch, a Thursday; `1w` starts on Mondays.
    fn from_str(text: &str) -> Result<Self, BucketError> {
        let words = BucketWords::of_text(text);
        words.ok_or_else(|| BucketError::Unreadable(text.to_owned()))?.bucket()
    }
}

impl fmt::Display for Bucket {
    /// The shortest text that reads back as the same bucket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Bucket::Months(months) => write_months(f, months),
            Bucket::Fixed { width, offset } => write_fixed(f, width, offset),
            Bucket::Local(LocalBucket { width, offset, zone }) => {
                match width {
                    LocalWidth::Time(width) => f.write_str(&duration(width))?,
                    LocalWidth::Months(months) => write_months(f, months)?,
                    LocalWidth::Days { count, anchor } => write_fixed(
                        f,
                        i64::from(count) * NANOS_PER_DAY,
                        i64::from(anchor) * NANOS_PER_DAY,
                    )?,
                }
                write_offset(f, offset)?;
                if zone == Tz::UTC { Ok(()) } else { write!(f, " {}", zone.name()) }
            }
        }
    }
}

fn write_months(f: &mut fmt::Formatter<'_>, months: u32) -> fmt::Result {
    match months {
        m if m % 12 == 0 => write!(f, "{}y", m / 12),
        m if m % 3 == 0 => write!(f, "{}q", m / 3),
        m => write!(f, "{m}mo"),
    }
}

fn write_fixed(f: &mut fmt::Formatter<'_>, width: i64, offset: i64) -> fmt::Result {
    let weeks = width / NANOS_PER_WEEK;
    let of_weeks = |first: i64| {
        let later = (offset - first).rem_euclid(width);
        (width % NANOS_PER_WEEK == 0 && later < NANOS_PER_DAY).then_some(later)
    };
    if let Some(later) = of_weeks(FIRST_MONDAY) {
        write!(f, "{weeks}w")?;
        return write_offset(f, later);
    }
    if let Some(later) = of_weeks(FIRST_SUNDAY) {
        write!(f, "{weeks}w {SUNDAY}")?;
        return write_offset(f, later);
    }
    f.write_str(&duration(width))?;
    write_offset(f, offset)
}

fn write_offset(f: &mut fmt::Formatter<'_>, offset: i64) -> fmt::Result {
    if offset == 0 {
        return Ok(());
    }
    write!(f, " +{}", duration(offset))
}

fn duration(nanos: i64) -> String {
    let (unit, length) = ["d", "h", "m", "s", "ms", "us", "ns"]
        .iter()
        .filter_map(|unit| Some((unit, nanos_of_unit(unit)?)))
        .find(|(_, length)| nanos % length == 0)
        .expect("every duration is a whole number of nanoseconds");
    format!("{}{unit}", nanos / length)
}
