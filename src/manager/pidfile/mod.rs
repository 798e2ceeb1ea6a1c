//! A supervisor of our own with a PID file, where there is no systemd.

// Until the supervisor is there.
#![allow(dead_code, reason = "the supervisor that uses it comes from another branch")]

mod when;
