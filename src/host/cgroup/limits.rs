//! What a control group may use.

/// What an upstream may use; what is not set is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory; when it is not enough, the whole upstream is killed.
    pub memory_max: Option<Memory>,
    /// CPU time in microseconds that each second allows.
    pub cpu_quota: Option<u64>,
    /// Processes and threads.
    pub tasks_max: Option<u64>,
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of a percent of the machine's memory.
    Share(u32),
}

/// A limit as the kernel takes it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Its key in the config.
    pub(super) limit: &'static str,
    /// What keeps it.
    pub(super) controller: &'static str,
    /// Where it is written.
    pub(super) file: &'static str,
    /// What is written.
    pub(super) value: String,
}

/// Microseconds over which CPU time is counted, as systemd does it.
const PERIOD: u64 = 100_000;
/// The longest period that the kernel takes, and the least CPU time in one.
const LONGEST_PERIOD: u64 = 1_000_000;
const LEAST_QUOTA: u64 = 1_000;

impl Limits {
    /// The settings that these limits ask for, on a machine with so many bytes of memory, if that is known.
    pub(super) fn settings(&self, machine: Option<u64>) -> Vec<Setting> {
        let memory = self.memory_max.map(|memory| Setting {
            limit: "memory_max",
            controller: "memory",
            file: "memory.max",
            value: match memory {
                Memory::Bytes(bytes) => bytes.to_string(),
                Memory::Share(share) => match machine {
                    Some(whole) => (u128::from(whole) * u128::from(share) / 10_000).to_string(),
                    // The kernel takes no share, and the refusal is told.
                    None => format!("{share}/10000"),
                },
            },
        });
        let cpu = self.cpu_quota.map(|quota| Setting {
            limit: "cpu_quota",
            controller: "cpu",
            file: "cpu.max",
            value: match quota.saturating_mul(PERIOD) / 1_000_000 {
                slice if slice >= LEAST_QUOTA => format!("{slice} {PERIOD}"),
                _ => format!("{} {LONGEST_PERIOD}", quota.max(LEAST_QUOTA)),
            },
        });
        let tasks = self.tasks_max.map(|tasks| Setting {
            limit: "tasks_max",
            controller: "pids",
            file: "pids.max",
            value: tasks.to_string(),
        });
        [memory, cpu, tasks].into_iter().flatten().collect()
    }
}

/// The machine's memory in bytes, from `/proc/meminfo`.
pub(super) fn machine_memory(meminfo: &str) -> Option<u64> {
    let kibibytes =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(limits: &Limits) -> String {
        let settings = limits.settings(Some(8 << 30));
        let lines = settings.iter().map(|setting| format!("{}={}", setting.file, setting.value));
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn limits_are_written_as_the_kernel_takes_them() {
        let quota = |micros| value(&Limits { cpu_quota: Some(micros), ..Limits::default() });
        assert_eq!(quota(1_500_000), "cpu.max=150000 100000");
        assert_eq!(quota(10_000), "cpu.max=1000 100000");
        // Too little for so short a period.
        assert_eq!(quota(5_000), "cpu.max=5000 1000000");
        assert_eq!(quota(100), "cpu.max=1000 1000000");
        let memory = |memory| value(&Limits { memory_max: Some(memory), ..Limits::default() });
        assert_eq!(memory(Memory::Bytes(1 << 20)), "memory.max=1048576");
        assert_eq!(memory(Memory::Share(2_500)), format!("memory.max={}", 2_u64 << 30));
        assert_eq!(value(&Limits { tasks_max: Some(64), ..Limits::default() }), "pids.max=64");
        assert_eq!(value(&Limits::default()), "");
    }

    #[test]
    fn the_machines_memory_is_read() {
        assert_eq!(machine_memory("MemTotal:       16384 kB\nMemFree:  1 kB\n"), Some(16 << 20));
        assert_eq!(machine_memory("MemFree:  1 kB\n"), None);
    }
}
