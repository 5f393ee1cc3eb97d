//! `results/`: one `job.json` per job, and for each row results that are right for it and never go back from completed.

use std::collections::BTreeMap;

use bytes::Bytes;
use packshot_pipeline::{
    model::{
        error_class::ErrorClass,
        job::Job,
        keys::{self, JobId, ResultsKey},
        message::RowMessage,
        result::RowResult,
    },
    settings::AccountPolicy,
};

use super::{
    check::{Check, parse, require},
    job::JobRecord,
    ledger::LedgerRecord,
};
use crate::uploads::{Expected, ExpectedRow};

/// Rows that the retry queue has accepted, with the round in which they would run.
#[derive(Default)]
pub(super) struct ParkedRows(BTreeMap<(JobId, u64), u64>);

impl ParkedRows {
    /// Adds messages that reached the retry queue.
    pub(super) fn add<'b>(&mut self, bodies: impl Iterator<Item = &'b str>) {
        for message in bodies.filter_map(|body| RowMessage::decode(body).ok()) {
            let round = self.0.entry((message.job, message.row)).or_default();
            *round = message.round.max(*round);
        }
    }

    /// Whether a row would run again in a round after this one.
    fn runs_after(&self, round: u64, job: &JobId, row: u64) -> bool {
        self.0.get(&(job.clone(), row)).is_some_and(|&parked| parked > round)
    }
}

/// What a result may be compared with.
pub(super) struct ResultContext<'a> {
    pub(super) account_errors: AccountPolicy,
    pub(super) ledger: &'a LedgerRecord,
    pub(super) parked: &'a ParkedRows,
}

/// Checks an object under `results/` and remembers it.
pub(super) fn wrote(
    jobs: &mut BTreeMap<JobId, JobRecord>,
    context: &ResultContext<'_>,
    key: &str,
    bytes: &Bytes,
) -> Check {
    let (id, row) = match ResultsKey::parse(key) {
        Some(ResultsKey::Job(id)) => (id, None),
        Some(ResultsKey::Row { job, row, .. }) => (job, Some(row)),
        None => return Err(format!("{key}: not a key of the product")),
    };
    let job = jobs.get_mut(&id).ok_or_else(|| format!("{key}: of a job that was never uploaded"))?;
    let Expected::Rows(rows) = &job.expected else { return Err(format!("{key}: of a file that is no catalog")) };
    let Some(row) = row else {
        let created: Job = parse(key, bytes)?;
        check_job(key, &created, rows)?;
        require(job.created.is_none(), || format!("{key}: written twice"))?;
        job.created = Some(created);
        return Ok(());
    };
    let index = usize::try_from(row).unwrap_or(usize::MAX) - 1;
    let expected = rows.get(index).ok_or_else(|| format!("{key}: the file has no such row"))?;
    require(key == keys::result(&id, row, &expected.sku), || {
        format!("{key}: row {row} has the SKU {:?}", expected.sku)
    })?;
    let result: RowResult = parse(key, bytes)?;
    if let Some((before, RowResult::Completed(_))) = job.results.get(&row).and_then(|versions| versions.last()) {
        require(before == bytes, || format!("{key}: a completed result was overwritten"))?;
    }
    check_result(context, &id, row, expected, &result).map_err(|what| format!("{key}: {what}"))?;
    job.results.entry(row).or_default().push((bytes.clone(), result));
    Ok(())
}

fn check_job(key: &str, created: &Job, rows: &[ExpectedRow]) -> Check {
    let valid = rows.iter().filter(|row| row.verdict.is_ok()).count() as u64;
    require(created.rows == rows.len() as u64 && created.valid == valid, || {
        let Job { rows: has, valid: has_valid, .. } = created;
        format!("{key}: {has} rows, {has_valid} valid, where the file has {} and {valid}", rows.len())
    })
}

fn check_result(
    context: &ResultContext<'_>,
    id: &JobId,
    row: u64,
    expected: &ExpectedRow,
    result: &RowResult,
) -> Check {
    require(result.row() == row, || "another row's".into())?;
    match (result, &expected.verdict) {
        (RowResult::Completed(completed), Ok(fp)) => {
            require(completed.sku == expected.sku, || format!("the SKU became {:?}", completed.sku))?;
            require(completed.fingerprint == *fp, || "another request's".into())?;
            let billed = completed.request_id.as_ref().is_some_and(|id| context.ledger.was_billed(fp, id));
            require(billed, || "completed by a call that was never billed".into())?;
            require(completed.image_count > 0, || "completed without an image".into())
        }
        (RowResult::Completed(_), Err(code)) => Err(format!("completed, and it is {code}")),
        (RowResult::Failed(failed), verdict) => {
            require(failed.sku == expected.sku, || format!("the SKU became {:?}", failed.sku))?;
            require(failed.line == expected.line, || format!("line {}, not {}", failed.line, expected.line))?;
            require(failed.fingerprint.as_ref() == verdict.as_ref().ok(), || "another request's".into())?;
            if let Err(code) = verdict {
                return require(failed.error_code == *code, || format!("{}, not {code}", failed.error_code));
            }
            let pauses = context.account_errors == AccountPolicy::Pause;
            require(!(pauses && failed.error_class == ErrorClass::Account), || {
                "failed by the account, which is to pause".into()
            })?;
            let parked = context.parked.runs_after(failed.round, id, row);
            require(parked || !failed.error_class.may_heal(), || "failed without a message in the retry queue".into())
        }
    }
}
