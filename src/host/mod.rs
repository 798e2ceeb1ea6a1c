//! What the process hears from its host, and says to it.
//!
//! `sd-notify` carries all that we tell the service manager, and how often it wants to hear from us; `libsystemd` all
//! else that we are told by it. Nobody outside this room sees either.

pub mod account;
pub mod cgroup;
pub mod credentials;
pub mod env_file;
pub mod exposure;
pub mod fault;
pub mod file;
pub mod inherited;
pub mod log;
pub mod log_control;
pub mod machine;
pub mod notify;
pub mod path;
pub mod port;
pub mod process;
pub mod sandbox;
pub mod signals;
pub mod unit;
pub mod user;
