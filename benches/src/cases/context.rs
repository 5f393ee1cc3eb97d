//! What all cases share: sizes, paths, the running fake services and the report; and the steps that several cases take.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use packshot_benches::samples::{self, CATALOG_KEY};
use tempfile::TempDir;

use crate::{
    events,
    fake_services::FakeServices,
    lambda::{Invocation, Lambda},
    outcome::Outcome,
    process::{Process, Usage},
    report::Report,
};

/// The numbers of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Size {
    /// Seconds, to try something.
    Quick,
    /// What `make bench` takes.
    Full,
    /// Everything at the sizes of the targets; an hour and some disk.
    Heavy,
}

impl Size {
    pub(super) fn pick(self, quick: u64, full: u64, heavy: u64) -> u64 {
        match self {
            Self::Quick => quick,
            Self::Full => full,
            Self::Heavy => heavy,
        }
    }

    pub(super) fn runs(self) -> usize {
        if self == Self::Quick { 1 } else { 3 }
    }
}

pub(super) struct Bench {
    pub(super) size: Size,
    pub(super) binaries: PathBuf,
    pub(super) bootstraps: Option<PathBuf>,
    pub(super) dir: TempDir,
    /// A directory on the disk, beside the results: on many machines the directory for temporary files is in memory.
    pub(super) disk: PathBuf,
    pub(super) services: FakeServices,
    pub(super) report: Report,
}

impl Bench {
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file of a catalog with this number of rows. Written at the first use.
    pub(super) fn catalog(&self, rows: u64) -> Outcome<PathBuf> {
        let path = self.dir().join(format!("catalog-{rows}.csv"));
        if !path.exists() {
            samples::catalog(&mut BufWriter::new(File::create(&path)?), rows)?;
        }
        Ok(path)
    }

    /// Runs one of [`crate::baselines`] to its end. CPU and wall-clock time are those that it prints: they leave out the
    /// start of its process.
    pub(super) async fn baseline(&self, arguments: &[&str]) -> Outcome<Usage> {
        let arguments = [&["baseline"], arguments].concat();
        let process = Process::start(&std::env::current_exe()?, &arguments, &self.services.environment, self.dir())?;
        let log = process.log();
        let whole = process.finish(&[0]).await?;
        let text = std::fs::read_to_string(log)?;
        let (cpu, wall) = text.trim().split_once(' ').ok_or("a baseline printed no times")?;
        let micros = |text: &str| text.parse().map(Duration::from_micros);
        Ok(Usage { cpu: micros(cpu)?, wall: micros(wall)?, ..whole })
    }

    /// Starts the binary of a function, with further variables.
    pub(super) async fn function(&self, name: &str, variables: &[(&str, &str)]) -> Outcome<Lambda> {
        let mut environment = self.services.environment.clone();
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Lambda::start(&self.binaries.join(name), &[], &environment, self.dir()).await
    }

    /// Uploads a catalog to an empty bucket and runs the splitter on it. Afterwards the bucket holds this job only.
    pub(super) async fn split(&self, rows: u64, variables: &[(&str, &str)]) -> Outcome<Invocation> {
        self.services.command("reset").await?;
        let file = self.catalog(rows)?;
        self.services.command(&format!("load?key={CATALOG_KEY}&file={}", file.display())).await?;
        let mut splitter = self.function("splitter", variables).await?;
        let split = splitter.invoke(events::split(CATALOG_KEY)).await?;
        let sent = self.services.count(|counts| counts.messages).await?;
        if sent != rows {
            return Err(format!("the splitter sent {sent} messages of {rows} rows").into());
        }
        Ok(split)
    }
}
