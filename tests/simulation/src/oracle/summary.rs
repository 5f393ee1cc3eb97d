//! `summary.json` speaks of a manifest that was written, or of the parts that were, and never goes back.

use std::collections::BTreeSet;

use packshot_pipeline::model::summary::{Status, Summary};

use super::{
    check::{Check, require},
    job::{Counts, JobRecord},
};
use crate::uploads::Expected;

pub(super) fn check(key: &str, job: &JobRecord, summary: &Summary) -> Check {
    let rows = match &job.expected {
        Expected::Rows(rows) => rows.len() as u64,
        Expected::Rejected { code, has_line } => {
            let problem = summary.rejected.as_ref().ok_or_else(|| format!("{key}: not rejected, and it is {code}"))?;
            require(summary.status == Status::Rejected, || format!("{key}: status {:?}", summary.status))?;
            require(problem.code == *code, || format!("{key}: {}, not {code}", problem.code))?;
            return require(problem.line.is_some() == *has_line, || format!("{key}: {problem} does not say where"));
        }
    };
    require(summary.rejected.is_none(), || format!("{key}: rejected, and it is a catalog: {:?}", summary.rejected))?;
    require(summary.counts.rows == rows, || format!("{key}: {} rows, not {rows}", summary.counts.rows))?;
    let Some(manifest) = &summary.manifest else {
        require(summary.status == Status::Running, || format!("{key}: {:?} without a manifest", summary.status))?;
        return check_running(job, summary).map_err(|what| format!("{key}: {what}"));
    };
    let counts = job.manifests.get(&manifest.etag.0);
    let counts = *counts.ok_or_else(|| format!("{key}: speaks of a manifest that was never written"))?;
    let (completed, failed) = counts;
    require((summary.counts.completed, summary.counts.failed) == counts, || {
        format!("{key}: {:?}, and the manifest has {completed} completed and {failed} failed", summary.counts)
    })?;
    let status = match counts {
        (_, 0) => Status::Complete,
        (0, _) => Status::Failed,
        _ => Status::CompleteWithFailures,
    };
    require(summary.status == status, || format!("{key}: {:?}, not {status:?}", summary.status))
}

/// While rows are missing, the counts are the sum of one version of some of the parts, and never go back.
fn check_running(job: &JobRecord, summary: &Summary) -> Check {
    let (counts, merged) = (&summary.counts, summary.rows_merged);
    if let Some(before) = &job.summary {
        require(before.manifest.is_none(), || "went back to running".into())?;
        let back = merged < before.rows_merged || counts.completed < before.counts.completed;
        require(!back, || format!("went back from {before:?} to {summary:?}"))?;
    }
    require(counts.completed + counts.failed == merged, || format!("{counts:?} of {merged} rows"))?;
    let mut sums: BTreeSet<Counts> = BTreeSet::from([(0, 0)]);
    for versions in job.parts.values() {
        let with = |&(completed, failed): &Counts| versions.iter().map(move |(c, f)| (completed + c, failed + f));
        let more: Vec<_> = sums.iter().flat_map(with).collect();
        sums.extend(more);
    }
    require(sums.contains(&(counts.completed, counts.failed)), || {
        format!("{counts:?} are not the sum of parts that were written")
    })
}
