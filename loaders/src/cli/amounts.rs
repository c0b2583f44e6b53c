//! Sizes and times, as people write and read them.

use bytesize::ByteSize;
use std::time::Duration;

/// A number of bytes, as in `20GB`, `512 MiB` or `1000`.
///
/// ```
/// use diver_loaders::cli::amounts::bytes;
///
/// assert_eq!(bytes("1.5GB"), Ok(1_500_000_000));
/// assert_eq!(bytes("2 KiB"), Ok(2048));
/// assert!(bytes("much").is_err());
/// ```
///
/// # Errors
/// The reason why it is not one.
pub fn bytes(text: &str) -> Result<u64, String> {
    let parsed = text.trim().parse::<ByteSize>();
    parsed
        .map(|size| size.as_u64())
        .map_err(|_| format!("expected a size, as in 20GB or 512MiB, found `{text}`"))
}

/// A time span, as in `30d`, `12h` or `1h 30m`.
///
/// ```
/// use diver_loaders::cli::amounts::duration;
/// use std::time::Duration;
///
/// assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
/// assert!(duration("soon").is_err());
/// ```
///
/// # Errors
/// The reason why it is not one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text.trim());
    parsed.map_err(|_| format!("expected a time span, as in 30d, 12h or 90s, found `{text}`"))
}

/// So many bytes, in the largest unit that fits.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().si().to_string()
}

/// So many seconds, in the largest unit that fits.
pub(super) fn age(seconds: f64) -> String {
    // A clock of another machine may be off by any amount.
    let whole = Duration::from_secs(seconds.max(0.0) as u64);
    humantime::format_duration(whole).to_string().split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_in_one_unit() {
        assert_eq!([size(0), size(20_000_000_000)], ["0 B", "20.0 GB"]);
        assert_eq!([age(0.4), age(59.0), age(3.0 * 86_400.0 + 5000.0)], ["0s", "59s", "3days"]);
        for wrong in ["", "GB", "20 apples", "-1GB", "30"] {
            assert!(bytes(wrong).is_err() || wrong == "30", "{wrong}");
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
