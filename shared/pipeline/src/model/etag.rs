//! The identity of an object's content, as stores report it. Conditional writes compare it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Opaque identity of an object's content, as the store reports it. Compare for equality only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Etag(pub String);

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
