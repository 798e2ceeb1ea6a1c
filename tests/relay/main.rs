//! What a client and an upstream find between them: the real program in the foreground, one for each test, with scripted
//! MCP servers (`scripted.py`) and real ones behind it.

mod bridge;
mod client;
mod scripted;

mod cancellation;
mod children;
mod fidelity;
mod guard;
mod names;
mod noise;
mod notifications;
mod progress;
mod real;
mod remote;
mod secrets;
mod sessions;
mod trouble;
