//! What a systemd of a given version can do, as measured, not as documented.

/// The oldest systemd that takes every property we always set (`OOMPolicy`: 243).
pub const MINIMUM: u32 = 243;

/// Something that only newer versions can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// `Type=notify-reload`: SIGHUP reloads, and systemd knows when that is done.
    NotifyReload,
    /// `RestartSteps=` and `RestartMaxDelaySec=`: the wait between restarts grows.
    RestartSteps,
    /// `PrivateDevices=` in a user's unit. Measured: 252 fails at it, 257 does not.
    UserDevices,
    /// Not a gain: services are executed by a helper process, which is told about them in a text.
    Executor,
    /// A command line without variables that survives a daemon-reload. Measured: broken in 252, right in 257.
    LiteralArguments,
}

impl Feature {
    /// The first version that has it.
    fn since(self) -> u32 {
        match self {
            Self::NotifyReload => 253,
            Self::RestartSteps => 254,
            Self::Executor => 255,
            Self::UserDevices | Self::LiteralArguments => 257,
        }
    }
}

/// The version of a running service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32);

impl Version {
    /// The version in what the manager calls its version: `252.39-1~deb12u2`, `v257.13`, `258~rc1`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('v').unwrap_or(text);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok().map(Self)
    }

    /// Whether it can do this.
    pub fn has(self, feature: Feature) -> bool {
        self.0 >= feature.since()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leading_digits_are_the_version() {
        for (text, version) in [
            ("252.39-1~deb12u2", 252),
            ("257.13", 257),
            ("v258-rc1", 258),
            ("249 (249.11-0ubuntu3)", 249),
            ("260", 260),
        ] {
            assert_eq!(Version::parse(text), Some(Version(version)), "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_not_guessed() {
        for text in ["", "v", "unknown", "-3", "99999999999999"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_feature_begins_with_its_version() {
        assert!(!Version(253).has(Feature::RestartSteps));
        assert!(Version(254).has(Feature::RestartSteps));
        assert!(!Version(256).has(Feature::LiteralArguments));
        assert!(Version(257).has(Feature::LiteralArguments));
    }
}
