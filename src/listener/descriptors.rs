//! File descriptors: what bounds the number of connections, whatever is configured.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most that is asked for. Some systems allow a thousand million, and a limit like that makes other
/// programs slow that close all descriptors they might have.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// Raises the soft limit of open files to the hard one, at most to 1,048,576, and returns what it is now.
/// The soft limit is often 1,024, for the sake of old programs that use `select`.
///
/// # Errors
/// When the system does not say. A limit that cannot be raised stays what it was.
pub fn raise_limit() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = raised(soft, hard);
    if wanted > soft && setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).is_ok() {
        return Ok(wanted);
    }
    Ok(soft)
}

fn raised(soft: u64, hard: u64) -> u64 {
    soft.max(hard.min(DESCRIPTORS_MAX))
}

/// How many client connections `descriptors` are enough for: each needs one of its own and one to a
/// backend; a fifth is left for idle connections, health checks, files.
#[must_use]
pub fn connections_for(descriptors: u64) -> usize {
    usize::try_from(descriptors / 5 * 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_fifths_in_pairs() {
        for (descriptors, connections) in [(1024, 408), (1 << 20, 419_430), (65_536, 26_214), (4, 1), (0, 1)] {
            assert_eq!(connections_for(descriptors), connections);
        }
        assert!(connections_for(u64::MAX) > 1 << 60);
    }

    #[test]
    fn a_limit_is_raised_in_reason_and_never_lowered() {
        for (soft, hard, wanted) in [
            (1024, 4096, 4096),
            (1024, 1024, 1024),
            (1024, u64::MAX, DESCRIPTORS_MAX),
            (DESCRIPTORS_MAX + 1, u64::MAX, DESCRIPTORS_MAX + 1),
        ] {
            assert_eq!(raised(soft, hard), wanted);
        }
        let now = raise_limit().unwrap();
        assert_eq!(raise_limit().unwrap(), now, "once is enough");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, now);
    }
}
