//! The job that is being merged, its keys and the ports.

use crate::{
    model::{job::Job, keys::Manifests},
    ports::Ports,
};

/// One job, and the keys of its files.
pub(super) struct Context<'a> {
    pub(super) ports: &'a Ports,
    pub(super) job: &'a Job,
    pub(super) files: Manifests,
}

impl<'a> Context<'a> {
    pub(super) fn of(ports: &'a Ports, job: &'a Job) -> Self {
        Self { ports, job, files: Manifests::of(&job.catalog, &job.job) }
    }
}
