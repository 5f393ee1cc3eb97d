//! Counts the rows of a job that is still running, so that its summary shows progress.
//!
//! What was counted is kept with the ETags of the counted parts, so that each part is read once for it. It names what it
//! counts, so it is true whichever merger wrote it last.

use std::{collections::BTreeMap, pin::pin};

use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use crate::{
    merge::{
        context::Context,
        part_stream::{add_lines, texts},
    },
    model::{
        etag::Etag,
        keys::{self, JobId},
        summary::Tally,
    },
    ports::{ListedObject, Precondition, StoreError},
    storage::Document,
};

/// `control/merge/<job>/so-far.json`: the counts of the parts that exist.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunningTally {
    /// ETags of the counted parts, by key.
    parts: BTreeMap<String, Etag>,
    tally: Tally,
}

impl RunningTally {
    pub(super) fn document(job: &JobId) -> Document<Self> {
        Document::compact(keys::running_tally(job))
    }

    /// Counts the rows of the listed parts, and reads only those parts that have not been counted.
    pub(super) async fn count(self, context: &Context<'_>, parts: &[ListedObject]) -> Result<Tally, StoreError> {
        let Context { ports, job, .. } = context;
        let listed: BTreeMap<_, _> = parts.iter().map(|part| (part.key.clone(), part.etag.clone())).collect();
        if self.parts == listed {
            return Ok(self.tally);
        }
        // A part cannot be subtracted from a sum, so if a counted part has changed, all are counted again.
        let unchanged = self.parts.iter().all(|(key, etag)| listed.get(key) == Some(etag));
        let Self { parts: counted, mut tally } = if unchanged { self } else { Self::default() };
        let new: Vec<_> = parts.iter().filter(|part| !counted.contains_key(&part.key)).cloned().collect();
        let mut texts = pin!(texts(ports, &new));
        while let Some(text) = texts.try_next().await? {
            add_lines(&mut tally, &text)?;
        }
        let running = Self { parts: listed, tally };
        // Without a precondition: it only saves work, and if it is lost, the parts are counted once more.
        Self::document(&job.job).write(ports, &running, Precondition::None).await?;
        Ok(running.tally)
    }
}
