//! Keeping an instance running.
