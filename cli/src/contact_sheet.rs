//! Finds the contact sheet of a run in a directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use packshot_pipeline::model::keys::JobId;

/// The file name of a contact sheet's first page.
const PAGE: &str = "review.html";

/// Why there is no page to open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContactSheetError {
    /// No run has ended there.
    #[error("no {PAGE} under {}; it is written when every row of a catalog has its result (`packshot run`)", .0.display())]
    None(PathBuf),
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
}

/// Finds the newest page under `what`, or that of the job `what` under `out`.
pub(crate) fn find(what: &str, out: &Path) -> Result<PathBuf, ContactSheetError> {
    let asked = Path::new(what);
    let job = JobId::parse(what).filter(|_| !asked.exists());
    let root = if job.is_some() { out } else { asked };
    if root.is_file() {
        return Ok(root.to_owned());
    }
    // The pages of a bucket are under manifests/; a downloaded copy may be in any directory.
    let manifests = root.join("manifests");
    let mut newest = None;
    search(if manifests.is_dir() { &manifests } else { root }, job.as_ref(), &mut newest)
        .map_err(|error| ContactSheetError::Unreadable { path: root.to_owned(), error })?;
    newest.map(|(_, page)| page).ok_or_else(|| ContactSheetError::None(root.to_owned()))
}

/// The newest page under `dir`; if `job` is given, only its page counts.
fn search(dir: &Path, job: Option<&JobId>, newest: &mut Option<(SystemTime, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            search(&path, job, newest)?;
        } else if entry.file_name() == PAGE && job.is_none_or(|job| dir.ends_with(job.as_str())) {
            let found = Some((entry.metadata()?.modified()?, path));
            *newest = found.max(newest.take());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn finds_the_newest_page_or_the_page_of_a_job() {
        let out = tempfile::tempdir().unwrap();
        let (old, new) = ("0000000000000001", "0000000000000002");
        for (job, age) in [(old, 60), (new, 0)] {
            let dir = out.path().join("manifests/spring/shoes").join(job);
            fs::create_dir_all(&dir).unwrap();
            let file = fs::File::create(dir.join(PAGE)).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - Duration::from_secs(age)).unwrap();
            fs::write(dir.join("review-2.html"), "").unwrap();
        }
        let dir = out.path().to_str().unwrap();
        let found = |what: &str| find(what, out.path());
        assert!(found(dir).unwrap().ends_with(format!("{new}/{PAGE}")));
        assert!(found(old).unwrap().ends_with(format!("{old}/{PAGE}")));
        let job_dir = format!("{dir}/manifests/spring/shoes/{old}");
        assert!(found(&job_dir).unwrap().ends_with(format!("{old}/{PAGE}")));
        assert!(found(&format!("{job_dir}/{PAGE}")).unwrap().ends_with(format!("{old}/{PAGE}")));
        assert!(matches!(found("0000000000000003"), Err(ContactSheetError::None(_))));
        assert!(matches!(found(&format!("{dir}/nowhere")), Err(ContactSheetError::Unreadable { .. })));
    }
}
