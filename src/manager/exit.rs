//! How processes end, in words a tired admin understands.

/// Exit codes after which another try cannot help: bad usage (2), what the bridge's user may not do (77, `EX_NOPERM`),
/// and a bad config (78, `EX_CONFIG`).
pub(super) const HOPELESS: [i32; 3] = [2, 77, 78];

/// What a bridge means by its exit code.
pub(super) fn explain_code(code: i32) -> String {
    match code {
        2 => "it did not understand its command line (exit code 2)".into(),
        77 => "its user may not do what it must, such as read its config (exit code 77)".into(),
        78 => "its config is not valid (exit code 78)".into(),
        code => format!("it ended with exit code {code}"),
    }
}

/// The name of a signal.
pub(super) fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}
