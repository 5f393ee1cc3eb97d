//! Stores the results of a whole job, so that the merger can be measured without running generators first.

use bytes::{Bytes, BytesMut};
use packshot_benches::samples;
use packshot_pipeline::model::{job::Job, json, keys};

use super::bucket::Bucket;

/// Rows whose result lines share one allocation.
const ROWS_PER_BUFFER: u64 = 1_000;

/// Stores a completed result for every row of the job whose `job.json` is in the bucket. Returns the job's id.
pub(super) fn results(bucket: &Bucket) -> Result<String, String> {
    let key = bucket.find(keys::RESULTS, "/job.json").ok_or("there is no job.json; run the splitter first")?;
    let job = bucket.get(&key).ok_or("job.json was removed")?;
    let job: Job = serde_json::from_slice(&job).map_err(|error| error.to_string())?;
    for first in (1..=job.rows).step_by(ROWS_PER_BUFFER as usize) {
        let rows = first..(first + ROWS_PER_BUFFER).min(job.rows + 1);
        let mut text = BytesMut::new();
        let ends: Vec<(u64, usize)> = rows
            .map(|row| {
                text.extend_from_slice(&json::to_line(&samples::result(&job.job, row)));
                (row, text.len())
            })
            .collect();
        let text: Bytes = text.freeze();
        let mut begin = 0;
        for (row, end) in ends {
            bucket.put(keys::result(&job.job, row, &samples::sku(row)), text.slice(begin..end));
            begin = end;
        }
    }
    Ok(job.job.to_string())
}
