//! Places at which a test has a process killed, to see that nothing is left behind.

/// A place of that name: here this process is killed, without a last word, when `FOXXY_BRIDGE_KILL_AT` names it. What is
/// built for use has no such places.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("FOXXY_BRIDGE_KILL_AT").is_some_and(|at| at == name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
