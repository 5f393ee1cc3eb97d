//! A directory as the bucket: an object is a file, its key is its path.
//!
//! A write fills a file in a private subdirectory and renames it into place, so that a reader never sees half an object.
//! A conditional write holds one of a fixed number of locks, chosen by its key, from the check to the rename. An ETag is a
//! hash of the content. It is remembered with the file's size, time of change and inode, so that an unchanged file is not
//! hashed again.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, ErrorKind, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use packshot_pipeline::{
    model::etag::Etag,
    ports::{Body, ListedObject, Object, ObjectMeta, Page, Precondition, Store, StoreError},
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};

use crate::content::{CHUNK, PAGE, etag, etag_of};

/// The subdirectory that is not part of the bucket: files that are still being written, and what else the host keeps.
const PRIVATE: &str = ".packshot";
/// Locks for conditional writes, chosen by the hash of the key; two keys seldom share one.
const STRIPES: usize = 64;
/// The most ETags that are remembered: about 1 MB.
const MAX_REMEMBERED: usize = 4_096;

/// A directory as the bucket.
///
/// The locks are those of this process: only one process may write to the directory, from any number of threads.
/// People may change files between runs. A path is either a file or a directory, so `a` and `a/b` cannot both exist.
#[derive(Clone)]
pub struct DirectoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    stripes: [Mutex<()>; STRIPES],
    remembered: Mutex<BTreeMap<String, (Stamp, Etag)>>,
}

/// Identifies a file whose hash is known. A write always creates a new file, so the inode changes even where the clock of
/// the file system is too coarse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: SystemTime,
    inode: u64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> io::Result<Self> {
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        #[cfg(not(unix))]
        let inode = 0;
        Ok(Self { bytes: metadata.len(), modified: metadata.modified()?, inode })
    }

    fn meta(self, etag: Etag) -> ObjectMeta {
        let last_modified = Timestamp::try_from(self.modified).unwrap_or(Timestamp::UNIX_EPOCH);
        ObjectMeta { etag, bytes: self.bytes, last_modified }
    }
}

/// An opened object: a small one is already in memory.
enum Opened {
    Small(Bytes),
    Large(File),
}

impl DirectoryStore {
    /// A store over this directory, which need not exist yet.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let stripes = std::array::from_fn(|_| Mutex::default());
        Self { inner: Arc::new(Inner { root, stripes, remembered: Mutex::default() }) }
    }

    /// Removes files that a killed process left incomplete. The caller must hold the directory's lock: the files of a process
    /// that is still writing look the same.
    pub fn sweep(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(self.inner.incomplete()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(store_error(&error, PRIVATE)),
            _ => Ok(()),
        }
    }

    /// Reads a small object on this thread: that takes microseconds, and handing it to another thread would take longer.
    async fn reading<T, F>(&self, key: &str, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner, &str) -> Result<T, StoreError> + Send + 'static,
    {
        if self.inner.length(key) <= CHUNK as u64 { read(&self.inner, key) } else { self.blocking(key, read).await }
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn blocking<T, F>(&self, key: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Inner, &str) -> Result<T, StoreError> + Send + 'static,
    {
        let (inner, key) = (Arc::clone(&self.inner), key.to_owned());
        let done = tokio::task::spawn_blocking(move || work(&inner, &key)).await;
        done.unwrap_or_else(|error| Err(StoreError::Unknown { detail: error.to_string() }))
    }
}

impl Inner {
    fn incomplete(&self) -> PathBuf {
        self.root.join(PRIVATE).join("incomplete")
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        match is_key(key) {
            true => Ok(self.root.join(key)),
            false => Err(StoreError::Refused { detail: format!("{key:?} cannot be the path of a file") }),
        }
    }

    fn recall(&self, key: &str, stamp: Stamp) -> Option<Etag> {
        self.remembered.lock().get(key).filter(|(known, _)| *known == stamp).map(|(_, etag)| etag.clone())
    }

    fn remember(&self, key: &str, stamp: Stamp, etag: &Etag) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MAX_REMEMBERED {
            // Some files are hashed again. Keeping track of the least recently used one would cost more.
            remembered.clear();
        }
        remembered.insert(key.to_owned(), (stamp, etag.clone()));
    }

    /// The size of an object in bytes; 0 if there is none.
    fn length(&self, key: &str) -> u64 {
        self.path(key).ok().and_then(|path| fs::metadata(path).ok()).map_or(0, |metadata| metadata.len())
    }

    fn meta(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        let path = self.path(key)?;
        let Some(metadata) = if_present(fs::metadata(&path), key)?.filter(Metadata::is_file) else { return Ok(None) };
        let stamp = Stamp::of(&metadata).map_err(|error| store_error(&error, key))?;
        if let Some(etag) = self.recall(key, stamp) {
            return Ok(Some(stamp.meta(etag)));
        }
        Ok(self.open(key)?.map(|(meta, _)| meta))
    }

    fn open(&self, key: &str) -> Result<Option<(ObjectMeta, Opened)>, StoreError> {
        let path = self.path(key)?;
        let Some(mut file) = if_present(File::open(&path), key)? else { return Ok(None) };
        let mut read = || {
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Ok(None);
            }
            let stamp = Stamp::of(&metadata)?;
            if stamp.bytes <= CHUNK as u64 {
                let mut bytes = Vec::with_capacity(stamp.bytes as usize);
                file.read_to_end(&mut bytes)?;
                return Ok(Some((stamp, Some(etag_of(&bytes)), Some(Bytes::from(bytes)))));
            }
            if let Some(etag) = self.recall(key, stamp) {
                return Ok(Some((stamp, Some(etag), None)));
            }
            let etag = hash(&mut file)?;
            file.rewind()?;
            Ok(Some((stamp, Some(etag), None)))
        };
        let Some((stamp, Some(etag), bytes)) = read().map_err(|error: io::Error| store_error(&error, key))? else {
            return Ok(None);
        };
        self.remember(key, stamp, &etag);
        Ok(Some((stamp.meta(etag), bytes.map_or(Opened::Large(file), Opened::Small))))
    }

    /// Creates a file on the same file system as the bucket. It removes itself unless it is committed.
    fn begin(&self) -> io::Result<NamedTempFile> {
        let directory = self.incomplete();
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        match builder.tempfile_in(&directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&directory)?;
                builder.tempfile_in(&directory)
            }
            begun => begun,
        }
    }

    /// Makes a complete file visible under its key, if the precondition holds.
    fn commit(&self, key: &str, file: NamedTempFile, etag: Etag, condition: &Precondition) -> Result<Etag, StoreError> {
        let path = self.path(key)?;
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let stripe = &self.stripes[hasher.finish() as usize % STRIPES];
        let _only_writer = stripe.lock();
        let holds = match condition {
            Precondition::None => true,
            Precondition::Absent => self.meta(key)?.is_none(),
            Precondition::Matches(wanted) => self.meta(key)?.is_some_and(|meta| meta.etag == *wanted),
        };
        if !holds {
            return Err(StoreError::Conflict { key: key.to_owned() });
        }
        let written = file.as_file().metadata().and_then(|metadata| Stamp::of(&metadata));
        let stamp = written.map_err(|error| store_error(&error, key))?;
        persist(file, &path).map_err(|error| store_error(&error, key))?;
        self.remember(key, stamp, &etag);
        Ok(etag)
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let (parent, _) = prefix.rsplit_once('/').unwrap_or_default();
        if !parent.is_empty() && !is_key(parent) {
            return Ok(Page::default());
        }
        let base = if parent.is_empty() { String::new() } else { format!("{parent}/") };
        let mut found = Vec::new();
        self.walk(&base, prefix, after.unwrap_or_default(), &mut found).map_err(|error| store_error(&error, prefix))?;
        let more = found.len() > PAGE;
        found.truncate(PAGE);
        let next = found.last().filter(|_| more).cloned();
        let mut objects = Vec::with_capacity(found.len());
        for key in found {
            // A person may have removed the file since.
            if let Some(meta) = self.meta(&key)? {
                objects.push(ListedObject { key, etag: meta.etag, bytes: meta.bytes });
            }
        }
        Ok(Page { objects, next })
    }

    /// Collects keys in the order of their bytes until there is one more than a page. `base` is empty or ends in `/`.
    fn walk(&self, base: &str, prefix: &str, after: &str, found: &mut Vec<String>) -> io::Result<()> {
        let entries = match fs::read_dir(self.root.join(base)) {
            Err(error) if is_missing(&error) => return Ok(()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            // This store wrote nothing that is not UTF-8, not a key, or neither a file nor a directory.
            let Ok(mut name) = entry.file_name().into_string() else { continue };
            name.insert_str(0, base);
            if !is_key(&name) {
                continue;
            }
            if kind.is_dir() {
                // Sorted with its slash, because the keys below it continue with one: `a-b` comes before `a/b`.
                name.push('/');
            } else if !kind.is_file() {
                continue;
            }
            let wanted = name.starts_with(prefix) || (name.ends_with('/') && prefix.starts_with(&name));
            let still_to_come = name.as_str() > after || (name.ends_with('/') && after.starts_with(&name));
            if wanted && still_to_come {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            if found.len() > PAGE {
                break;
            }
            if name.ends_with('/') {
                self.walk(&name, prefix, after, found)?;
            } else {
                found.push(name);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>, StoreError> {
        self.reading(key, Inner::meta).await
    }

    async fn open(&self, key: &str, _version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let Some((meta, opened)) = self.reading(key, Inner::open).await? else { return Ok(None) };
        let body = match opened {
            Opened::Small(bytes) if bytes.is_empty() => stream::empty().boxed(),
            Opened::Small(bytes) => stream::iter([Ok(bytes)]).boxed(),
            Opened::Large(file) => read_on(tokio::fs::File::from_std(file), key.to_owned()),
        };
        Ok(Some(Object { meta, body }))
    }

    async fn put(&self, key: &str, body: Bytes, precondition: Precondition) -> Result<Etag, StoreError> {
        self.blocking(key, move |inner, key| {
            inner.path(key)?;
            let mut file = inner.begin().map_err(|error| store_error(&error, key))?;
            file.write_all(&body).map_err(|error| store_error(&error, key))?;
            inner.commit(key, file, etag_of(&body), &precondition)
        })
        .await
    }

    async fn put_stream(&self, key: &str, mut body: Body<'_>, precondition: Precondition) -> Result<Etag, StoreError> {
        let begin = |inner: &Inner, key: &str| {
            inner.path(key)?;
            let file = inner.begin().map_err(|error| store_error(&error, key))?;
            let handle = file.as_file().try_clone().map_err(|error| store_error(&error, key))?;
            Ok((file, handle))
        };
        let (file, handle) = self.blocking(key, begin).await?;
        let mut writer = BufWriter::with_capacity(4 * CHUNK, tokio::fs::File::from_std(handle));
        let mut hash = Sha256::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            hash.update(&chunk);
            writer.write_all(&chunk).await.map_err(|error| store_error(&error, key))?;
        }
        writer.flush().await.map_err(|error| store_error(&error, key))?;
        self.blocking(key, move |inner, key| inner.commit(key, file, etag(hash), &precondition)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        let after = after.map(str::to_owned);
        self.blocking(prefix, move |inner, prefix| inner.list(prefix, after.as_deref())).await
    }
}

/// Whether a key can be the path of a file inside the directory, on any system.
fn is_key(key: &str) -> bool {
    !key.contains(['\\', '\0'])
        && key.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        && key.split('/').next() != Some(PRIVATE)
}

fn read_on(file: tokio::fs::File, key: String) -> Body<'static> {
    stream::try_unfold((file, key), |(mut file, key)| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match file.read_buf(&mut chunk).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some((chunk.freeze(), (file, key)))),
            Err(error) => Err(store_error(&error, &key)),
        }
    })
    .boxed()
}

fn hash(file: &mut File) -> io::Result<Etag> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(etag(hash)),
            length => hash.update(&chunk[..length]),
        }
    }
}

fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    match file.persist(path) {
        Err(failed) if failed.error.kind() == ErrorKind::NotFound => {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            failed.file.persist(path)?;
            Ok(())
        }
        persisted => persisted.map(|_| ()).map_err(io::Error::from),
    }
}

/// Turns the error for a missing file into `None`.
fn if_present<T>(result: io::Result<T>, key: &str) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(store_error(&error, key)),
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn store_error(error: &io::Error, key: &str) -> StoreError {
    let detail = format!("{key}: {error}");
    match error.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidFilename
        | ErrorKind::InvalidInput
        | ErrorKind::AlreadyExists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::DirectoryNotEmpty => StoreError::Refused { detail },
        _ => StoreError::Unavailable { detail },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::TryStreamExt as _;
    use tempfile::TempDir;

    use super::*;

    fn a_store() -> (TempDir, DirectoryStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(directory.path().to_owned());
        (directory, store)
    }

    async fn put(store: &DirectoryStore, key: &str, body: &str) -> Result<Etag, StoreError> {
        store.put(key, Bytes::from(body.to_owned()), Precondition::None).await
    }

    async fn head(store: &DirectoryStore, key: &str) -> ObjectMeta {
        store.head(key).await.unwrap().unwrap()
    }

    async fn listed(store: &DirectoryStore, prefix: &str) -> Vec<String> {
        store.list(prefix, None).await.unwrap().objects.into_iter().map(|object| object.key).collect()
    }

    #[tokio::test]
    async fn no_key_leaves_the_directory() {
        let (directory, store) = a_store();
        drop(store);
        let store = DirectoryStore::new(directory.path().join("bucket"));
        std::fs::write(directory.path().join("outside"), "x").unwrap();
        put(&store, "a/b", "x").await.unwrap();
        for key in [
            "",
            "/",
            "..",
            "../outside",
            "a/../../outside",
            "a/./b",
            "a//b",
            "/outside",
            "a/",
            "a\\b",
            "..\\outside",
            "nul\0",
            ".packshot",
            ".packshot/x",
        ] {
            assert!(matches!(put(&store, key, "x").await, Err(StoreError::Refused { .. })), "{key:?}");
            assert!(matches!(store.head(key).await, Err(StoreError::Refused { .. })), "{key:?}");
            assert!(matches!(store.open(key, None).await, Err(StoreError::Refused { .. })), "{key:?}");
        }
        for prefix in ["../", "a/../", "..", "/", "a//", ".packshot/", "nul\0/"] {
            assert_eq!(listed(&store, prefix).await, [""; 0], "{prefix:?}");
        }
        assert_eq!(listed(&store, "").await, ["a/b"]);
        let long = "x".repeat(300);
        assert!(matches!(put(&store, &long, "x").await, Err(StoreError::Refused { .. })));
    }

    #[tokio::test]
    async fn a_path_is_not_both_a_file_and_a_directory() {
        let (_directory, store) = a_store();
        put(&store, "a/b", "x").await.unwrap();
        for key in ["a", "a/b/c"] {
            assert!(matches!(put(&store, key, "x").await, Err(StoreError::Refused { .. })), "{key}");
        }
        assert_eq!(listed(&store, "").await, ["a/b"]);
    }

    #[tokio::test]
    async fn a_change_by_a_person_is_seen() {
        let (directory, store) = a_store();
        let large = "a".repeat(CHUNK + 1);
        for (key, body) in [("small", "a"), ("large", large.as_str())] {
            let before = put(&store, key, body).await.unwrap();
            assert_eq!(head(&store, key).await.etag, before);
            // The same length, in place: only the time of the change differs.
            let path = directory.path().join(key);
            std::fs::write(&path, body.replace('a', "b")).unwrap();
            let later = head(&store, key).await.last_modified + Duration::from_secs(7);
            File::options().append(true).open(&path).unwrap().set_modified(later.into()).unwrap();
            let after = head(&store, key).await;
            assert_eq!(after.last_modified, later);
            assert_ne!(after.etag, before);
            let expected = put(&store, "same", &body.replace('a', "b")).await.unwrap();
            assert_eq!(after.etag, expected);
            // A new process finds the same.
            assert_eq!(head(&DirectoryStore::new(directory.path().to_owned()), key).await, after);
        }
    }

    #[tokio::test]
    async fn an_abandoned_write_leaves_nothing() {
        let (directory, store) = a_store();
        let endless = stream::iter([Ok(Bytes::from("x".repeat(CHUNK)))]).chain(stream::pending()).boxed();
        let write = store.put_stream("results/a", endless, Precondition::None);
        assert!(tokio::time::timeout(Duration::from_millis(50), write).await.is_err());
        assert_eq!(listed(&store, "").await, [""; 0]);
        let incomplete = directory.path().join(PRIVATE).join("incomplete");
        assert_eq!(fs::read_dir(&incomplete).unwrap().count(), 0);

        std::fs::write(incomplete.join("of a killed process"), "x").unwrap();
        store.sweep().unwrap();
        store.sweep().unwrap();
        assert!(!incomplete.exists());
        put(&store, "results/a", "x").await.unwrap();
        assert_eq!(listed(&store, "").await, ["results/a"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn files_are_as_readable_as_any() {
        use std::os::unix::fs::PermissionsExt as _;
        let (directory, store) = a_store();
        put(&store, "a", "x").await.unwrap();
        std::fs::write(directory.path().join("b"), "x").unwrap();
        let mode = |name| fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("a"), mode("b"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_no_key_is_not_listed() {
        use std::os::unix::ffi::OsStrExt as _;
        let (directory, store) = a_store();
        put(&store, "a/b", "x").await.unwrap();
        std::fs::write(directory.path().join("a").join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
        std::fs::write(directory.path().join("a").join("back\\slash"), "x").unwrap();
        std::os::unix::fs::symlink("..", directory.path().join("a").join("loop")).unwrap();
        assert_eq!(listed(&store, "").await, ["a/b"]);
    }

    #[tokio::test]
    async fn an_open_object_stays_what_it_was() {
        let (_directory, store) = a_store();
        let body = "a".repeat(5 * CHUNK);
        put(&store, "a", &body).await.unwrap();
        let object = store.open("a", None).await.unwrap().unwrap();
        put(&store, "a", "other").await.unwrap();
        let chunks: Vec<Bytes> = object.body.try_collect().await.unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        assert_eq!(chunks.concat(), body.as_bytes());
    }
}
