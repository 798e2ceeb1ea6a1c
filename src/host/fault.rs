//! Places at which a test has a process killed or halted, to see that nothing is left behind.

/// A place of that name: here this process is killed, without a last word, when `FOXXY_BRIDGE_KILL_AT` names it, and
/// halted when `FOXXY_BRIDGE_HALT_AT` does. What is built for use has no such places.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    for (variable, signal) in [
        ("FOXXY_BRIDGE_KILL_AT", rustix::process::Signal::KILL),
        ("FOXXY_BRIDGE_HALT_AT", rustix::process::Signal::STOP),
    ] {
        if std::env::var_os(variable).is_some_and(|at| at == name) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
