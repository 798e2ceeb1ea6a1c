//! The file a person writes.
