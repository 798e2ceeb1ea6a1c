//! A systemd for tests, at the other end of a socket pair.

use super::state::{ActiveState, LoadState, ServiceResult, UnitState};

/// A unit that ran and failed.
pub(super) fn failed_state() -> UnitState {
    UnitState {
        load: LoadState::Loaded,
        active: ActiveState::Failed,
        sub: "failed".into(),
        result: ServiceResult::ExitCode,
        exec_main_code: 1,
        exec_main_status: 1,
        argv: vec!["/bin/bridge".into()],
        ..UnitState::blank()
    }
}
