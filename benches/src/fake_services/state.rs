//! What the three ports share.

use super::{bucket::Bucket, counters::Counters, images::Images, queues::Queues};

/// All fake services and their counters.
#[derive(Default)]
pub(super) struct State {
    pub(super) bucket: Bucket,
    pub(super) queues: Queues,
    pub(super) images: Images,
    pub(super) counters: Counters,
}
