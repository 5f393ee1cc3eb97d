//! `packshot review`: the contact sheet of a run, in the browser.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use packshot_pipeline::model::keys::JobId;

/// What the contact sheet's first page is called, wherever it stands.
const PAGE: &str = "review.html";

/// Arguments of `packshot review`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  packshot review                       the newest run in out/
  packshot review shoes-out             the newest run in another directory
  packshot review 7b8bea91220e78be      one job in out/
  packshot review --no-open             only say where the page stands

In the page: j and k go from SKU to SKU, the arrows from picture to picture, Enter shows one large beside its source, / finds, Esc
shows all again.")]
pub struct ReviewArgs {
    /// A directory that was given to `run --out`, a job's directory, or a job.
    #[arg(value_name = "DIR|JOB", default_value = "out")]
    pub what: String,
    /// Where to look for a job.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
    /// Print where the page stands and open nothing.
    #[arg(long)]
    pub no_open: bool,
}

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// No run has come to its end there.
    #[error("no {PAGE} under {}; it is written when every row of a catalog has its result (`packshot run`)", .0.display())]
    None(PathBuf),
    /// The directory cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no browser, or none that can be started from here.
    #[error("no browser could be started ({0}); open the page above yourself, or use --no-open")]
    NoBrowser(io::Error),
}

/// Prints where the page stands, and opens it.
#[expect(clippy::print_stdout, reason = "the path is what the command is for")]
pub fn run(args: &ReviewArgs) -> Result<(), ReviewError> {
    let page = find(args)?;
    println!("{}", page.display());
    if args.no_open { Ok(()) } else { open::that_detached(&page).map_err(ReviewError::NoBrowser) }
}

fn find(args: &ReviewArgs) -> Result<PathBuf, ReviewError> {
    let asked = Path::new(&args.what);
    let job = JobId::parse(&args.what).filter(|_| !asked.exists());
    let root = if job.is_some() { &args.out } else { asked };
    if root.is_file() {
        return Ok(root.to_owned());
    }
    // A bucket's pages stand under manifests/; what was fetched from one may stand anywhere.
    let manifests = root.join("manifests");
    let mut newest = None;
    search(if manifests.is_dir() { &manifests } else { root }, job.as_ref(), &mut newest)
        .map_err(|error| ReviewError::Unreadable { path: root.to_owned(), error })?;
    newest.map(|(_, page)| page).ok_or_else(|| ReviewError::None(root.to_owned()))
}

/// The page that was written last under `dir`; that of `job`, where one is asked for.
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

    fn args(what: &str, out: &Path) -> ReviewArgs {
        ReviewArgs { what: what.to_owned(), out: out.to_owned(), no_open: true }
    }

    #[test]
    fn finds_the_newest_page_or_the_jobs() {
        let place = tempfile::tempdir().unwrap();
        let (old, new) = ("0000000000000001", "0000000000000002");
        for (job, age) in [(old, 60), (new, 0)] {
            let dir = place.path().join("manifests/spring/shoes").join(job);
            fs::create_dir_all(&dir).unwrap();
            let file = fs::File::create(dir.join(PAGE)).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - Duration::from_secs(age)).unwrap();
            fs::write(dir.join("review-2.html"), "").unwrap();
        }
        let dir = place.path().to_str().unwrap();
        let found = |what: &str| find(&args(what, place.path())).unwrap();
        assert!(found(dir).ends_with(format!("{new}/{PAGE}")));
        assert!(found(old).ends_with(format!("{old}/{PAGE}")));
        let jobs_own = format!("{dir}/manifests/spring/shoes/{old}");
        assert!(found(&jobs_own).ends_with(format!("{old}/{PAGE}")));
        assert!(found(&format!("{jobs_own}/{PAGE}")).ends_with(format!("{old}/{PAGE}")));
        assert!(matches!(find(&args("0000000000000003", place.path())), Err(ReviewError::None(_))));
        assert!(matches!(find(&args(&format!("{dir}/nowhere"), place.path())), Err(ReviewError::Unreadable { .. })));
    }
}
