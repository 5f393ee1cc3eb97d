//! Subscribers are notified of how each job ends, and of nothing that no summary said.

use std::collections::BTreeMap;

use packshot_pipeline::model::{keys::JobId, notification::Notification, summary::Status};

use super::{
    check::{Check, require},
    job::JobRecord,
};

/// Checks a notification that was sent and remembers it.
pub(super) fn sent(jobs: &mut BTreeMap<JobId, JobRecord>, notification: &Notification) -> Check {
    let id = &notification.job;
    let job = jobs.get_mut(id).ok_or_else(|| format!("job {id}: notified, and it was never uploaded"))?;
    job.notified.push(notification.status);
    require(job.allowed_notifications.contains(notification), || {
        format!("notified of what no summary said: {notification:?}")
    })
}

/// The last notification is of the status in which the job ended. None is sent of a job that is still running.
pub(super) fn check_last(job: &JobRecord, status: Status, worker_died: bool) -> Check {
    let sent = &job.notified;
    require(status == Status::Running || sent.contains(&status), || format!("no notification that it is {status:?}"))?;
    // A merger that finds that it sent an older status after a newer one sends the newer one again, unless it dies.
    let last = worker_died || sent.last().is_none_or(|last| *last == status);
    require(last, || format!("notified in this order: {sent:?}, and it is {status:?}"))
}
