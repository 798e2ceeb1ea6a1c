//! The sequences of calls, against a systemd that does what the test says.

use std::time::{Duration, Instant};

use super::Systemd;
use super::fake::{Act, Fake, Refusal, active_state, failed_state};
use super::state::{ActiveState, JobResult, LoadState, ServiceResult, UnitState};
use crate::instance::{Name, Scope};
use crate::manager::{
    Enablement, Error, ErrorKind, Managed, Run, ServiceManager, StartFailure, StartRequest, Started, State,
    Stopped, UnitSpec,
};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

fn work() -> Name {
    "work".parse().unwrap()
}

fn request(timeout: Duration) -> StartRequest {
    let run = Run::Transient(Box::new(UnitSpec::example()));
    StartRequest { name: work(), run, timeout, wait: true }
}

fn starting() -> UnitState {
    UnitState { active: ActiveState::Activating, sub: "start".into(), ..active_state() }
}

fn failure(error: Error) -> StartFailure {
    match error {
        Error::DidNotStart(failure) => *failure,
        other => panic!("not a failed start: {other:?}"),
    }
}

async fn start(fake: &Fake) -> Result<Started, Error> {
    let (systemd, _server) = fake.connect().await;
    systemd.start(&request(LONG)).await
}

async fn stop(fake: &Fake, force: bool, timeout: Duration) -> Result<Stopped, Error> {
    let (systemd, _server) = fake.connect().await;
    systemd.stop(&work(), force, timeout).await
}

#[tokio::test]
async fn a_job_that_ends_before_its_call_returns_is_seen() {
    let fake = Fake::new();
    let Started::Running(managed) = start(&fake).await.unwrap() else { panic!("not running") };
    assert_eq!((managed.pid, managed.state), (Some(42), State::Running));
    assert_eq!(managed.config.as_deref(), Some("/c/work.json".as_ref()));
    assert_eq!(fake.calls(), ["ResetFailedUnit", "StartTransientUnit fail", "UnrefUnit"]);
}

#[tokio::test]
async fn a_job_that_is_done_does_not_hide_a_unit_that_failed() {
    let fake = Fake::new();
    let died = UnitState {
        exec_main_status: 78,
        status_text: "config: line 3: unexpected `}`".into(),
        ..failed_state()
    };
    fake.script().starts = vec![Act::Ends(JobResult::Done, died)];
    let error = start(&fake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(error.to_string(), "the bridge `work` did not start");
    assert_eq!(
        error.why().unwrap(),
        "its config is not valid (exit code 78); it said last: config: line 3: unexpected `}`"
    );
    assert_eq!(failure(error).exit_code, Some(78));
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_behind() {
    let fake = Fake::new();
    let again = UnitState { active: ActiveState::Activating, sub: "auto-restart".into(), ..failed_state() };
    fake.script().starts = vec![Act::Ends(JobResult::Failed, again)];
    start(&fake).await.unwrap_err();
    assert_eq!(
        fake.calls(),
        ["ResetFailedUnit", "StartTransientUnit fail", "StopUnit replace", "ResetFailedUnit", "UnrefUnit"]
    );
}

#[tokio::test]
async fn a_job_result_of_a_newer_systemd_is_a_failure_with_its_word() {
    let fake = Fake::new();
    let blank = UnitState { load: LoadState::Loaded, ..UnitState::blank() };
    fake.script().starts = vec![Act::Ends(JobResult::Other("vetoed".into()), blank)];
    let failure = failure(start(&fake).await.unwrap_err());
    assert_eq!(failure.reason, "systemd ended the start with `vetoed`");
}

#[tokio::test]
async fn a_start_that_never_ends_is_given_up_and_stopped() {
    let fake = Fake::new();
    fake.script().starts = vec![Act::Hangs(starting())];
    let (systemd, _server) = fake.connect().await;
    let failure = failure(systemd.start(&request(SOON)).await.unwrap_err());
    assert_eq!(failure.reason, "it did not report within 0.1 s that it is ready");
    assert!(fake.calls().contains(&"StopUnit replace".to_owned()));
}

#[tokio::test]
async fn a_bridge_that_serves_at_the_deadline_has_started_even_if_nobody_said_so() {
    let fake = Fake::new();
    fake.script().starts = vec![Act::Hangs(active_state())];
    let (systemd, _server) = fake.connect().await;
    let started = systemd.start(&request(SOON)).await.unwrap();
    assert!(matches!(started, Started::Running(_)), "{started:?}");
}

#[tokio::test]
async fn a_connection_that_ends_is_an_error_at_once() {
    let fake = Fake::new();
    fake.script().starts = vec![Act::HangsUp];
    let begin = Instant::now();
    let error = start(&fake).await.unwrap_err();
    assert!(begin.elapsed() < LONG / 2);
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
}

#[tokio::test]
async fn a_failed_leftover_is_reset_and_the_start_tried_again() {
    let fake = Fake::new();
    fake.script().starts = vec![
        Act::Ends(JobResult::Done, active_state()),
        Act::Refuses(Refusal::unit_exists(), failed_state()),
    ];
    let started = start(&fake).await.unwrap();
    assert!(matches!(started, Started::Running(_)), "{started:?}");
}

#[tokio::test]
async fn a_start_that_lost_the_race_finds_the_winner() {
    let fake = Fake::new();
    fake.script().starts = vec![Act::Refuses(Refusal::unit_exists(), active_state())];
    let started = start(&fake).await.unwrap();
    assert!(matches!(started, Started::AlreadyRunning(_)), "{started:?}");
    assert!(!fake.calls().iter().any(|call| call.starts_with("StopUnit")));
}

#[tokio::test]
async fn a_start_that_somebody_else_began_is_waited_for() {
    let fake = Fake::new();
    fake.script().state = Some(starting());
    let (systemd, server) = fake.connect().await;
    let request = request(LONG);
    let (started, ()) = tokio::join!(systemd.start(&request), fake.change_when_held(&server, active_state()));
    assert!(matches!(started, Ok(Started::AlreadyRunning(_))), "{started:?}");
    assert_eq!(fake.calls(), ["RefUnit", "UnrefUnit"]);
}

#[tokio::test]
async fn a_unit_that_is_there_each_time_and_gone_when_looked_at_is_given_up() {
    let fake = Fake::new();
    let exists = Act::Refuses(Refusal::unit_exists(), failed_state());
    fake.script().starts = vec![exists; 20];
    let error = start(&fake).await.unwrap_err();
    assert!(matches!(error, Error::Rejected { .. }), "{error:?}");
}

#[tokio::test]
async fn what_the_user_may_not_do_is_said_so() {
    let fake = Fake::new();
    let refusal = Refusal(
        "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
        "Interactive authentication required.".into(),
    );
    fake.script().starts = vec![Act::Refuses(refusal, UnitState::blank())];
    let error = start(&fake).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotPermitted, "{error:?}");
    assert_eq!(error.to_string(), "this user may not start foxxy-bridge-work.service");
}

#[tokio::test]
async fn a_property_that_systemd_does_not_take_is_named() {
    let fake = Fake::new();
    let refusal = Refusal("org.freedesktop.DBus.Error.PropertyReadOnly", "Cannot set property Tpye".into());
    fake.script().starts = vec![Act::Refuses(refusal, UnitState::blank())];
    let error = start(&fake).await.unwrap_err();
    assert_eq!(error.to_string(), "systemd refused to start foxxy-bridge-work.service");
    assert_eq!(error.why().unwrap(), "Cannot set property Tpye");
}

#[tokio::test]
async fn a_forced_stop_is_queued_before_the_kill() {
    let fake = Fake::new();
    fake.script().state = Some(active_state());
    assert_eq!(stop(&fake, true, LONG).await.unwrap(), Stopped::Killed);
    assert_eq!(
        fake.calls(),
        ["RefUnit", "StopUnit replace", "KillUnit all 9", "ResetFailedUnit", "UnrefUnit"]
    );
}

#[tokio::test]
async fn a_bridge_that_systemd_had_to_kill_is_said_to_be_killed() {
    let fake = Fake::new();
    fake.script().state = Some(active_state());
    let timed_out = UnitState { result: ServiceResult::Timeout, ..failed_state() };
    fake.script().stop = Act::Ends(JobResult::Done, timed_out);
    assert_eq!(stop(&fake, false, LONG).await.unwrap(), Stopped::Killed);
}

#[tokio::test]
async fn processes_that_outlive_the_stop_are_named() {
    let fake = Fake::new();
    fake.script().state = Some(active_state());
    fake.script().processes = vec![77, 78];
    let error = stop(&fake, false, LONG).await.unwrap_err();
    assert_eq!(error.why().unwrap(), "these processes are left: 77, 78");
}

#[tokio::test]
async fn a_stop_that_never_ends_is_an_error_after_its_deadline() {
    let fake = Fake::new();
    fake.script().state = Some(active_state());
    fake.script().stop = Act::Hangs(UnitState { active: ActiveState::Deactivating, ..active_state() });
    let error = stop(&fake, false, SOON).await.unwrap_err();
    assert!(matches!(error, Error::DidNotStop { .. }), "{error:?}");
    assert!(error.hint().unwrap().contains("server stop work --force"));
}

#[tokio::test]
async fn a_socket_whose_job_never_ends_is_given_up_after_the_callers_time_and_says_so() {
    let fake = Fake::new();
    fake.script().unit = "foxxy-bridge@work.socket".into();
    fake.script().starts = vec![Act::Hangs(starting())];
    let (systemd, _server) = fake.connect().await;
    let request = StartRequest { run: Run::Enabled(Enablement::FirstClient), ..request(SOON) };
    let error = systemd.start(&request).await.unwrap_err();
    assert_eq!(error.to_string(), "systemd did not answer within 0.1 s");

    fake.script().state = Some(active_state());
    fake.script().stop = Act::Hangs(active_state());
    let error = stop(&fake, false, SOON).await.unwrap_err();
    assert!(matches!(error, Error::DidNotStop { after: SOON, .. }), "{error:?}");
}

#[tokio::test]
async fn a_stop_or_restart_is_waited_for_as_long_as_its_unit_allows() {
    let fake = Fake::new();
    let stopping = UnitState { active: ActiveState::Deactivating, ..active_state() };
    fake.script().state = Some(active_state());
    fake.script().stop_timeout = 1_000_000;
    fake.script().stop = Act::Hangs(stopping.clone());
    let begun = Instant::now();
    let error = stop(&fake, false, SOON).await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(1), "given up after {:?}", begun.elapsed());
    assert!(matches!(error, Error::DidNotStop { after, .. } if after == SOON + Duration::from_secs(1)));

    fake.script().state = Some(active_state());
    fake.script().starts = vec![Act::Hangs(stopping)];
    let (systemd, _server) = fake.connect().await;
    assert_eq!(systemd.stop_timeout(&work()).await.unwrap(), Duration::from_secs(1));
    let begun = Instant::now();
    systemd.restart(&work(), &UnitSpec::example(), SOON).await.unwrap_err();
    assert!(begun.elapsed() >= Duration::from_secs(1), "given up after {:?}", begun.elapsed());

    // `infinity`, of a unit of somebody's own: every wait has an end.
    fake.script().stop_timeout = u64::MAX;
    assert_eq!(systemd.stop_timeout(&work()).await.unwrap(), Duration::from_secs(86_400));
}

#[tokio::test]
async fn a_bridge_that_was_given_up_is_forgotten_by_a_stop() {
    let fake = Fake::new();
    fake.script().state = Some(failed_state());
    assert_eq!(stop(&fake, false, LONG).await.unwrap(), Stopped::GivenUp);
    assert_eq!(fake.calls(), ["ResetFailedUnit"]);
    assert_eq!(stop(&fake, false, LONG).await.unwrap(), Stopped::NotRunning);
}

#[tokio::test]
async fn stopping_what_is_not_there_touches_nothing() {
    let fake = Fake::new();
    assert_eq!(stop(&fake, false, LONG).await.unwrap(), Stopped::NotRunning);
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn an_instance_of_the_template_is_found_and_stopped_too() {
    let fake = Fake::new();
    fake.script().unit = "foxxy-bridge@work.service".into();
    fake.script().state = Some(active_state());
    assert_eq!(stop(&fake, false, LONG).await.unwrap(), Stopped::Clean);
    assert!(fake.calls().contains(&"StopUnit replace".to_owned()));
}

#[tokio::test]
async fn a_running_instance_of_the_template_is_not_started_a_second_time() {
    let fake = Fake::new();
    fake.script().unit = "foxxy-bridge@work.service".into();
    fake.script().state = Some(active_state());
    let Started::AlreadyRunning(managed) = start(&fake).await.unwrap() else { panic!("started") };
    assert_eq!(managed.unit, "foxxy-bridge@work.service");
    assert_eq!(fake.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_restart_needs_something_that_runs() {
    let (systemd, _server) = Fake::new().connect().await;
    let error = systemd.restart(&work(), &UnitSpec::example(), LONG).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRunning);
}

#[tokio::test]
async fn a_restart_that_fails_is_left_to_systemd_and_says_so() {
    let fake = Fake::new();
    fake.script().state = Some(active_state());
    let again = UnitState { active: ActiveState::Activating, sub: "auto-restart".into(), ..failed_state() };
    fake.script().starts = vec![Act::Ends(JobResult::Failed, again)];
    let (systemd, _server) = fake.connect().await;
    let error = systemd.restart(&work(), &UnitSpec::example(), LONG).await.unwrap_err();
    assert_eq!(error.why().unwrap(), "it ended with exit code 1; systemd goes on trying");
    assert!(!fake.calls().iter().any(|call| call.starts_with("StopUnit")));
}

async fn listed(state: UnitState) -> Vec<Managed> {
    let fake = Fake::new();
    fake.script().state = Some(state);
    let (systemd, _server) = fake.connect().await;
    systemd.list().await.unwrap()
}

#[tokio::test]
async fn a_list_shows_what_runs_restarts_or_failed() {
    let serves = listed(active_state()).await.remove(0);
    // It is asked itself, not systemd, for what more there is to know of it.
    assert_eq!((serves.state, serves.transient, serves.restarts), (State::Running, true, None));
    let again = UnitState { active: ActiveState::Activating, sub: "auto-restart".into(), ..failed_state() };
    let again = listed(again).await.remove(0);
    assert_eq!(again.state, State::Restarting);
    assert_eq!(again.failure.as_deref(), Some("it ended with exit code 1"));
    assert_eq!(listed(failed_state()).await[0].state, State::Failed);
}

#[tokio::test]
async fn a_list_leaves_out_what_is_stopped_or_gone() {
    assert_eq!(listed(UnitState { active: ActiveState::Inactive, ..active_state() }).await, []);
    assert_eq!(listed(UnitState::blank()).await, []);
}

#[tokio::test]
async fn a_systemd_that_is_too_old_is_refused_and_one_without_a_number_is_not() {
    let (old, _server) = Fake::new().connect_as("239 (239-82.el8)").await;
    assert!(matches!(old.unwrap_err(), Error::TooOld { version: 239, .. }));
    let (odd, _server) = Fake::new().connect_as("rolling").await;
    assert_eq!(odd.unwrap().scope, Scope::User);
}

#[test]
fn a_manager_can_be_used_from_any_task() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Systemd>();
}
