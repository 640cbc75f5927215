//! Figures and cells of tables.

use std::fmt;
use std::time::Duration;

/// A figure with a unit; empty if there is none.
pub(crate) struct Cell(pub(crate) Option<f64>, pub(crate) &'static str);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(value) if value >= 100.0 => write!(f, "{value:.0}{}", self.1),
            Some(value) if value >= 10.0 => write!(f, "{value:.1}{}", self.1),
            Some(value) => write!(f, "{value:.2}{}", self.1),
        }
    }
}

/// The median; 0 without values.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The percentile with `share` from 0 to 1, in milliseconds; 0 without values.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a rank is between 0 and the number of samples"
)]
pub(crate) fn percentile(times: &[Duration], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() as f64 * share) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(rank.min(last)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
