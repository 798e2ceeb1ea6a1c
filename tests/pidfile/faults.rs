//! Each fault of the predecessor's manager (`mcp-foxxy-bridge` 1.7.1) that ours must not have, by its number in the list
//! that was made of them. Where a test elsewhere is the answer, it is named.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::json;

use crate::home::{Home, get, lives, signal, wait_until};

/// 2: a daemon that was killed was still "running" by its status, as a zombie. Here nobody reaps either: see `Home::new`.
#[test]
fn fault_2_of_a_daemon_that_was_killed_nobody_says_that_it_runs() {
    let home = Home::new();
    home.config("work", &json!({}));
    home.start("work").success();
    let (supervisor, bridge) = (home.supervisor("work"), home.bridge("work").expect("a bridge"));
    signal(supervisor, Signal::KILL);
    wait_until("both have ended", || !lives(supervisor) && !lives(bridge));
    assert_eq!(home.listed("work")["status"], "failed");
    home.status("work").refused(3);
    assert_eq!(home.stop("work").success(), "stopped work: it had failed and was given up\n");
    home.nothing_is_left();
}

/// 3: a start right after the kill said "already running", and nothing ran.
#[test]
fn fault_3_a_daemon_that_was_killed_is_started_at_once() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    for _ in 0..5 {
        home.start("work").success();
        signal(home.supervisor("work"), Signal::KILL);
        let said = home.start("work").success();
        assert!(said.starts_with("started work: "), "{said}");
        assert_eq!(get(port, "/livez"), Ok(200));
        home.one_runs("work");
        home.stop("work").success();
        home.nothing_is_left();
    }
}

// 4: a PID file with a stranger's number had it killed by a stop:
//    `identity::the_number_of_a_stranger_is_no_supervisor`, `identity::a_stranger_who_holds_the_lock_is_told_and_not_signalled`.
// 5: what makes no sense in a PID file is no daemon (it did that well):
//    `identity::what_makes_no_sense_in_a_pid_file_is_passed_over`.
// 6: of starts at once several said that they had succeeded, and the PID file named a dead process:
//    `races::of_many_starts_at_once_one_starts_it_and_all_are_told_of_it`.
// 7: with a port that was taken it said "started successfully": `life::a_taken_port_is_named_with_its_holder`.

/// 8: a restart failed for a minute after a client had been answered with `Connection: close`.
#[test]
fn fault_8_a_port_with_connections_that_have_ended_is_free() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    home.start("work").success();
    // It is the bridge that ends this one first, and so has its side of it in TIME_WAIT.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    write!(stream, "GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")
        .expect("a request");
    stream.read_to_string(&mut String::new()).expect("an answer");
    drop(stream);
    let waits = |port: u16| {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
        let own = format!("0100007F:{port:04X}");
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|row| row.get(1) == Some(&&*own) && row.get(3) == Some(&"06"))
    };
    wait_until("it is in TIME_WAIT", || waits(port));
    home.foxxy(&["server", "restart", "work"]).success();
    home.stop("work").success();
    assert!(waits(port), "this shows nothing");
    home.start("work").success();
    assert_eq!(get(port, "/livez"), Ok(200));
    home.stop("work").success();
    home.nothing_is_left();
}

// 9: with a config that was not valid it said that the start had succeeded, exit code 0; 10: so for one that is missing:
//    `life::a_config_that_cannot_be_used_is_told_before_anything_is_started`.
// 12: with a folder that cannot be written every command died, a list too:
//    `identity::a_folder_that_cannot_be_written_is_told_and_lists_all_the_same`.
// 13: with a config that cannot be read it said that the start had succeeded:
//    `life::a_config_that_may_not_be_read_is_told_before_anything_is_started`.

/// 20: with the command that was typed killed, the server ran on, and `stop` could not stop it. Here that command is the
/// server in the foreground, and nobody is needed once `start --daemon` has handed it over.
#[test]
fn fault_20_what_was_typed_is_no_parent_that_a_bridge_outlives() {
    let home = Home::new();
    let port = home.config("work", &json!({}));
    let config = home.config_of("work");
    let server = home.begin(&["server", "start", "--config", config.to_str().expect("a path")], &[]);
    wait_until("it serves", || get(port, "/livez") == Ok(200));
    assert_eq!(home.processes(), [server.pid()]);
    signal(server.pid(), Signal::KILL);
    server.end();
    assert!(home.processes().is_empty());

    // One in the foreground that lives is stopped like any other.
    let server = home.begin(&["server", "start", "--config", config.to_str().expect("a path")], &[]);
    wait_until("it serves", || get(port, "/livez") == Ok(200));
    assert_eq!(home.stop("work").success(), "stopped work\n");
    assert_eq!(server.end().code, Some(0));
    home.nothing_is_left();
}

// Those of its relay and its config have their answers there:
//  1 (a killed server stays dead): `relay::trouble::a_server_that_died_comes_back_by_itself_with_what_clients_wanted_of_it`;
// 11 (a command that does not exist is "valid"): `relay::trouble::a_command_that_is_not_there…`, and `config validate`;
// 14 (tools that clients get twice): `relay::names`; 15 (servers that become one): `config::tests::messages`;
// 16 (a timeout that is not heeded): `relay::trouble::a_server_that_takes_long_to_say_hello_has_the_time_that_its_timeout_gives`;
// 17, 18, 19 (settings of what tools may do that have no effect): nobody is let believe that they have one, see
//    `keys_without_function_yet_warn_once_each_and_only_when_they_ask_for_something` in `config::tests::messages`;
// 21 (64 clients at once): `relay::sessions::sixty_four_clients_at_once_get_each_their_answers`.
