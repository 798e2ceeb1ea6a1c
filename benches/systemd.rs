//! What it costs to have a bridge kept, against what systemd's own commands cost: the same machine as the tests', the
//! same binary, one command of each in turn, so that what else the host does hits both alike.
//!
//! Prints the medians and their ratio, and fails when a ratio is above the bound.

#[path = "../tests/systemd/machine.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod machine;
#[path = "../tests/systemd/output.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod output;
#[path = "../tests/systemd/tree.rs"]
mod tree;

use std::process::ExitCode;

use serde_json::Value;

use crate::machine::Machine;
use crate::tree::Tree;

/// How much longer ours may take than systemd's.
const BOUND: f64 = 1.5;

/// A comparison, run in the machine: what it is of, the names of both sides, and its arguments.
struct Comparison {
    what: &'static str,
    ours: &'static str,
    theirs: &'static str,
    script: &'static str,
}

const COMPARISONS: [Comparison; 2] = [
    Comparison {
        what: "from a start to READY",
        ours: "server start --daemon",
        theirs: "systemd-run --property=Type=notify",
        script: START,
    },
    Comparison {
        what: "a list of 50 bridges that run",
        ours: "server list",
        theirs: "systemctl --user list-units",
        script: LIST,
    },
];

/// What both scripts begin with: each prints two lists of milliseconds, ours and theirs.
const PRELUDE: &str = r#"
import json, os, subprocess, time
def run(*argv):
    begun = time.perf_counter()
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = (time.perf_counter() - begun) * 1000
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return took, done.stdout
def config(name, port):
    with open(f"{name}.json", "w") as file:
        json.dump({"mcpServers": {}, "bridge": {"port": port}}, file)
    return os.path.abspath(file.name)
ours, theirs = [], []
"#;

const START: &str = r#"
path = config("bench", 8570)
for number in range(40):
    def one():
        ours.append(run("foxxy-bridge", "server", "start", "--daemon", "--config", path)[0])
        run("foxxy-bridge", "server", "stop", "bench")
    def other():
        unit = ("systemd-run", "--user", "--quiet", "--collect", "--unit=bench", "--property=Type=notify")
        theirs.append(run(*unit, "foxxy-bridge", "server", "start", "--config", path)[0])
        run("systemctl", "--user", "stop", "bench")
    for side in (one, other) if number % 2 else (other, one): side()
print(json.dumps([ours, theirs]))
"#;

const LIST: &str = r#"
for number in range(50):
    run("foxxy-bridge", "server", "start", "--daemon", "--config", config(f"many-{number}", 8510 + number))
for number in range(40):
    def one():
        took, said = run("foxxy-bridge", "server", "list")
        assert said.count("  running  ") == 50, said
        ours.append(took)
    def other():
        took, said = run("systemctl", "--user", "list-units")
        assert said.count("foxxy-bridge-many-") == 50, said
        theirs.append(took)
    for side in (one, other) if number % 2 else (other, one): side()
run("foxxy-bridge", "server", "stop", "--all")
print(json.dumps([ours, theirs]))
"#;

fn main() -> ExitCode {
    let mut failed = false;
    for tree in Tree::all() {
        if let Some(why) = tree.unavailable() {
            say(&format!("systemd {}: left out: {why}", tree.version()));
            continue;
        }
        let machine = match Machine::boot(tree) {
            Ok(machine) => machine,
            Err(why) => {
                say(&why);
                return ExitCode::FAILURE;
            }
        };
        say(&format!("systemd {}", tree.version()));
        for comparison in &COMPARISONS {
            failed |= compare(&machine, comparison) > BOUND;
        }
    }
    if failed {
        say(&format!("above {BOUND}"));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a comparison, prints it, and tells how many times theirs ours takes.
fn compare(machine: &Machine, comparison: &Comparison) -> f64 {
    let Comparison { what, ours, theirs, script } = comparison;
    let said = machine.user(&["python3", "-c", &[PRELUDE, script].concat()]).success();
    let said: Value = serde_json::from_str(&said).expect("two lists of numbers");
    let (mine, other) = (median(&said[0]), median(&said[1]));
    let ratio = mine / other;
    say(&format!("  {what}: {mine:.1} ms ({ours}), {other:.1} ms ({theirs}): {ratio:.2} times"));
    ratio
}

/// The middle one.
fn median(list: &Value) -> f64 {
    let mut list: Vec<f64> = list.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    list.sort_by(f64::total_cmp);
    list.get(list.len() / 2).copied().expect("a list that is not empty")
}

#[allow(clippy::print_stdout, reason = "this is a program of its own")]
fn say(line: &str) {
    println!("{line}");
}
