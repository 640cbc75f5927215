//! The file descriptor limit, which bounds the number of connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The largest limit that is requested. Some systems allow a billion, which slows down programs that close
/// every possible descriptor.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// Raises the soft limit of open files to the hard limit, at most to 1,048,576, and returns the resulting
/// limit. The soft limit is often 1,024, for old programs that use `select`.
///
/// # Errors
/// If the limit cannot be read. A limit that cannot be raised stays as it is.
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

/// The number of client connections that `descriptors` allow: each needs one descriptor and one for its backend
/// connection; a fifth is reserved for idle connections, health checks and files.
#[must_use]
pub fn connections_for(descriptors: u64) -> usize {
    usize::try_from(descriptors / 5 * 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_two_fifths_of_the_descriptors() {
        for (descriptors, connections) in [(1024, 408), (1 << 20, 419_430), (65_536, 26_214), (4, 1), (0, 1)] {
            assert_eq!(connections_for(descriptors), connections);
        }
        assert!(connections_for(u64::MAX) > 1 << 60);
    }

    #[test]
    fn descriptor_limit_is_raised_up_to_a_maximum_and_never_lowered() {
        for (soft, hard, wanted) in [
            (1024, 4096, 4096),
            (1024, 1024, 1024),
            (1024, u64::MAX, DESCRIPTORS_MAX),
            (DESCRIPTORS_MAX + 1, u64::MAX, DESCRIPTORS_MAX + 1),
        ] {
            assert_eq!(raised(soft, hard), wanted);
        }
        let now = raise_limit().unwrap();
        assert_eq!(raise_limit().unwrap(), now, "a second call changes nothing");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, now);
    }
}
