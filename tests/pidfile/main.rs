//! Bridges kept without systemd, by a supervisor with a PID file: the real program as a person types it, each test in a
//! home of its own.

mod family;
mod home;

mod bare;
mod container;
mod faults;
mod identity;
mod killed;
mod life;
mod logs;
mod machine;
mod races;
mod supervision;
