//! One module per command: its arguments, what it prints, and its exit status. The work is done in the modules beside this one.

pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod redrive;
pub(crate) mod review;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod stub_api;
pub(crate) mod submit;
