//! One daemon in front of all your MCP servers, kept running by the host's own service manager.
//!
//! Imports point down: `cli` · `daemon` · `http` · `bridge` beside `manager` · `control` · `instance` ·
//! `config` beside `host`. `bridge` and `manager` never import each other: they meet in `control`.

pub mod bridge;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod host;
pub mod http;
pub mod instance;
pub mod manager;
