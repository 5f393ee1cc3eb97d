//! Streams the parts of a job, as text or as rows, a few parts at a time: memory does not grow with the job.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest, Sha256};

use crate::{
    merge::attempt::missing_object,
    model::{
        result::RowResult,
        summary::{Counts, Tally},
    },
    ports::{ListedObject, Ports, StoreError},
    storage::repeat_read,
};

/// Parts that are read ahead while the first of them is used.
const PARTS_AHEAD: usize = 2;

/// Which rows a stream yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Completed,
    Failed,
}

/// The text of each part as it was listed. A part that has changed since is a conflict, which begins the attempt again.
pub(super) fn texts<'s>(
    ports: &'s Ports,
    parts: &'s [ListedObject],
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + 's {
    let text = move |part: &'s ListedObject| async move {
        let opened = repeat_read(ports, || ports.store.open(&part.key, None)).await?;
        let object = opened.ok_or_else(|| missing_object(&part.key))?;
        if object.meta.etag != part.etag {
            return Err(StoreError::Conflict { key: part.key.clone() });
        }
        let chunks: Vec<Bytes> = object.body.try_collect().await?;
        Ok(Bytes::from(chunks.concat()))
    };
    stream::iter(parts).map(text).buffered(PARTS_AHEAD)
}

/// The failed rows or the completed ones, in row order. If the counts say that there are none, no part is read.
pub(super) fn rows<'s>(
    ports: &'s Ports,
    parts: &'s [ListedObject],
    which: Rows,
    counts: &Counts,
) -> impl Stream<Item = Result<RowResult, StoreError>> + Send + 's {
    let failed = which == Rows::Failed;
    let count = if failed { counts.failed } else { counts.completed };
    let rows = move |text: Bytes| {
        let rows: Vec<_> = lines(&text).filter_map(|line| RowResult::read_if(failed, line)).map(Ok).collect();
        stream::iter(rows)
    };
    texts(ports, if count > 0 { parts } else { &[] }).map_ok(rows).try_flatten()
}

/// Counts the rows of a part.
pub(super) fn add_lines(tally: &mut Tally, text: &[u8]) -> Result<(), StoreError> {
    for line in lines(text) {
        let result =
            RowResult::read(line).map_err(|error| StoreError::Refused { detail: format!("a result line: {error}") })?;
        tally.add(&result);
    }
    Ok(())
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&b| b == b'\n').filter(|line| !line.is_empty())
}

/// Identity of a listing: which keys with which content.
pub(super) fn digest<'l>(listed: impl IntoIterator<Item = &'l ListedObject>) -> String {
    let mut hash = Sha256::new();
    for object in listed {
        hash.update(&object.key);
        hash.update([0]);
        hash.update(&object.etag.0);
        hash.update([0]);
    }
    hex::encode(&hash.finalize()[..16])
}
