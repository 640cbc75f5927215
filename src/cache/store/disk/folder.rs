//! Whether a folder can be used for a store, found out without changing anything.

use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD};

/// Checks that a store in `directory` can be opened and written to. If it is missing, the nearest folder above it that
/// exists must allow its creation.
///
/// # Errors
/// The reason why not.
pub fn check_folder(directory: &Path) -> io::Result<()> {
    let mut folder = directory;
    loop {
        if folder.as_os_str().is_empty() {
            folder = Path::new(".");
        }
        match (std::fs::metadata(folder), folder.parent()) {
            (Ok(found), _) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            (Ok(_), _) => {
                let needed = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
                return Ok(rustix::fs::accessat(CWD, folder, needed, AtFlags::EACCESS)?);
            }
            (Err(e), Some(above)) if e.kind() == io::ErrorKind::NotFound => folder = above,
            (Err(e), _) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folder_is_usable_if_it_or_the_one_above_allows_it_and_nothing_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name);
        std::fs::write(inside("file"), "").unwrap();
        check_folder(folder.path()).unwrap();
        check_folder(&inside("new/and/deep")).unwrap();
        check_folder(Path::new("missing/relative")).unwrap();
        assert!(!inside("new").exists());
        for name in ["file", "file/below"] {
            assert_eq!(check_folder(&inside(name)).unwrap_err().kind(), io::ErrorKind::NotADirectory, "{name}");
        }
        // Permissions do not concern root.
        if !rustix::process::geteuid().is_root() {
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o500)).unwrap();
            assert_eq!(check_folder(&inside("new")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }
}
