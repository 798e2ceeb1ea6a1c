//! stub
use std::io::{self, PipeReader, Read as _};
use std::time::Duration;
use crate::host::log::Level;
use crate::manager::Entry;
use crate::manager::pidfile::order::Order;

pub(super) struct Log(Option<std::path::PathBuf>);
pub(super) struct Follower(std::thread::JoinHandle<Vec<Entry>>);
impl Log {
    pub(super) fn open(order: &Order) -> io::Result<Self> {
        if let Some(f) = &order.log_file { std::fs::create_dir_all(f.parent().unwrap())?; std::fs::OpenOptions::new().append(true).create(true).open(f)?; }
        Ok(Self(order.log_file.clone()))
    }
    pub(super) fn say(&self, level: Level, text: &str) {
        put(&self.0, format!("{level} {text}\n").as_bytes());
    }
    pub(super) fn reopen(&self) {}
    pub(super) fn end(&self) {}
    pub(super) fn follow(&self, mut pipe: PipeReader, _pid: u32) -> Follower {
        let path = self.0.clone();
        Follower(std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) { put(&path, &chunk[..n]); all.extend_from_slice(&chunk[..n]); }
            String::from_utf8_lossy(&all).lines().map(|l| Entry { message: l.to_owned(), ..Entry::default() }).collect()
        }))
    }
}
impl Follower { pub(super) async fn end(self, _within: Duration) -> Vec<Entry> { tokio::task::spawn_blocking(move || self.0.join().unwrap_or_default()).await.unwrap_or_default() } }
fn put(path: &Option<std::path::PathBuf>, bytes: &[u8]) {
    use std::io::Write as _;
    match path {
        Some(path) => { let _ = std::fs::OpenOptions::new().append(true).create(true).open(path).and_then(|mut f| f.write_all(bytes)); }
        None => { let _ = io::stdout().write_all(bytes); }
    }
}
