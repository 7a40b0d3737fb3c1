//! Names of measurements as names of files, and back.

use std::path::PathBuf;

use crate::cli::client::escaped;

/// Bytes of the longest name; file systems take 255, with the extension and more behind it.
const LONGEST: usize = 200;

/// The name of the file of a measurement: what means something to file systems is `%` and two
/// hexadecimal digits.
pub(super) fn of_measurement(measurement: &str) -> PathBuf {
    let name: String = measurement.chars().map(in_file_name).collect();
    // A name with a leading dot would be hidden, or mean a folder.
    let name = name.strip_prefix('.').map_or_else(|| name.clone(), |rest| format!("%2E{rest}"));
    PathBuf::from(short(name) + ".parquet")
}

/// A name that file systems take: a long one is cut, and ends with the checksum of all of it. An
/// import of that file has to be told the measurement.
fn short(name: String) -> String {
    if name.len() <= LONGEST {
        return name;
    }
    let kept = &name[..name.floor_char_boundary(LONGEST - 9)];
    format!("{kept}+{:08x}", crc32c::crc32c(name.as_bytes()))
}

fn in_file_name(symbol: char) -> String {
    let is_special = matches!(symbol, '/' | '\\' | '%' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let symbol_text = symbol.to_string();
    if is_special || symbol.is_control() { escaped(&symbol_text) } else { symbol_text }
}

/// The measurement of a file with this name, without its extension.
pub(crate) fn measurement_of_stem(stem: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), stem.as_bytes());
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let escape = byte.filter(|_| *first == b'%');
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for (name, file) in [
            ("cpu", "cpu.parquet"),
            ("cpu.load", "cpu.load.parquet"),
            ("../a b", "%2E.%2Fa b.parquet"),
            ("50% é\n", "50%25 é%0A.parquet"),
        ] {
            assert_eq!(of_measurement(name), PathBuf::from(file));
            assert_eq!(measurement_of_stem(file.strip_suffix(".parquet").unwrap()), name);
        }
        let long = of_measurement(&"ü".repeat(500));
        assert!(long.as_os_str().len() < 255 && long != of_measurement(&"ü".repeat(501)));
        assert_eq!(measurement_of_stem("100%"), "100%");
        assert_eq!(measurement_of_stem("a%zz"), "a%zz");
    }
}
