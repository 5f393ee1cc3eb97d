//! Files that appear complete or not at all.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// A file that is written under another name and renamed when it is complete. Removed if it never is.
pub(crate) struct AtomicFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates `path.part`, in the same directory because a rename works only there.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        Ok(Self { file: File::create(&part)?, part, path: path.to_owned() })
    }

    /// Where to write.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its name.
    pub(crate) fn commit(self) -> io::Result<()> {
        fs::rename(&self.part, &self.path)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // After a commit it has another name. Where it cannot be removed, the first error matters more.
        let _ = fs::remove_file(&self.part);
    }
}

/// Copies a file.
pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let mut copy = AtomicFile::create(to)?;
    io::copy(&mut File::open(from)?, copy.file())?;
    copy.commit()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_appears_when_it_is_committed_and_leaves_nothing_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.jsonl");
        let mut file = AtomicFile::create(&path).unwrap();
        file.file().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        let mut file = AtomicFile::create(&path).unwrap();
        file.file().write_all(b"whole").unwrap();
        file.commit().unwrap();
        copy(&path, &path.with_file_name("copy.jsonl")).unwrap();
        assert_eq!(fs::read(path.with_file_name("copy.jsonl")).unwrap(), b"whole");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
    }
}
