//! The file a person writes: JSON or TOML, expanded, checked, and turned into plain data.
//!
//! [`load`] is the way in: `file` reads the text, `document` makes a tree of it, `check` brings the tree into line with
//! the `schema` of the model (and has `expand` expand its strings), serde turns it into the model, `rules` checks what
//! no schema can say. Nothing here writes a file, and no secret shows in `Debug`, in [`show`], or in a [`Problem`].

mod load;

mod check;
mod describe;
mod document;
mod expand;
mod file;
mod pending;
mod problem;
mod rules;
mod schema;

mod daemon;
mod model;
mod text;
mod units;
mod upstream;

pub use daemon::{Daemon, Limits, LogFiles, ManagerChoice, Restart, Sandbox, Scope};
pub use document::Format;
pub use expand::Sources;
pub use file::resolve_path;
pub use load::{Choice, Loaded, load, locate, parse, sample, show};
pub use model::{
    Aggregation, Authentication, Bridge, Config, ConfigReload, ConflictResolution, Failover, LogLevel,
    Security, ToolClass, ToolSecurity,
};
pub use problem::{Invalid, InvalidKind, Position, Problem};
pub use schema::schema;
pub use text::{Json, Secret, Text};
pub use units::{CpuQuota, MemoryLimit, NotAUnit, Share, Size};
pub use upstream::{HealthCheck, HealthOperation, OauthConfig, Transport, Upstream, UpstreamLimits};

#[cfg(test)]
mod tests;
