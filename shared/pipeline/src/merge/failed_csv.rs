//! `failed.csv`: the failed rows with their original columns, the error code and the error, to be corrected and uploaded
//! again.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future, stream};

use crate::{
    merge::{
        context::Context,
        part_stream::{Rows, rows},
        snapshot::Snapshot,
    },
    model::{
        result::RowResult,
        spreadsheet::{ERROR_COLUMNS, defuse, own_columns},
        summary::Summary,
    },
    ports::StoreError,
};

/// Writes the failed rows. Without any, the file has only its header.
pub(super) async fn write_failed_csv(
    context: &Context<'_>,
    snapshot: &Snapshot,
    summary: &Summary,
) -> Result<(), StoreError> {
    let Context { ports, job, files } = context;
    let columns = &job.columns;
    let header = csv_line(own_columns(columns).chain(ERROR_COLUMNS));
    let failed = rows(ports, snapshot.parts(), Rows::Failed, &summary.counts);
    let lines = failed.map_ok(|row| Bytes::from(failed_row(columns, &row)));
    let body = stream::once(future::ready(Ok(Bytes::from(header)))).chain(lines);
    ports.store.put_stream(&files.failed_csv(), body.boxed(), snapshot.failed_csv_unchanged()).await?;
    Ok(())
}

fn failed_row(columns: &[String], result: &RowResult) -> Vec<u8> {
    let RowResult::Failed(row) = result else { return Vec::new() };
    let field = |name: &str| row.input.get(name).and_then(|value| value.as_str()).unwrap_or("");
    csv_line(own_columns(columns).map(field).chain([row.error_code.as_str(), row.error.as_str()]))
}

fn csv_line<'f>(fields: impl Iterator<Item = &'f str>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(Vec::new());
    // Writing to memory cannot fail.
    let _ = writer.write_record(fields.map(|field| defuse(field).into_owned()));
    writer.into_inner().unwrap_or_default()
}
