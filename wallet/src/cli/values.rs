//! Values that are more than a text.

use std::time::Duration;

use tally_types::Hash;

pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| format!("{error}; write for example 30s or 5m"))?;
    // A century: no clock arithmetic below can overflow.
    let limit = Duration::from_secs(100 * 365 * 24 * 3600);
    if duration.is_zero() || duration > limit {
        return Err("must be above zero and at most 100 years".into());
    }
    Ok(duration)
}

pub fn hash(text: &str) -> Result<Hash, String> {
    Hash::from_hex(text).ok_or_else(|| "must be 64 lower-case hex digits".into())
}
