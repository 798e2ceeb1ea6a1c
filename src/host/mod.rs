//! What the process hears from its host, and says to it.
//!
//! `sd-notify` carries all that we tell the service manager, `libsystemd` all that we are told by it; nobody outside
//! this room sees either.

pub mod credentials;
pub mod log;
pub mod notify;
pub mod path;
pub mod port;
pub mod signals;
pub mod unit;
