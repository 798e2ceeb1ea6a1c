//! What the bridge tells of itself: sd_notify(3) on a socket of the supervisor's own, so that it says the same as to
//! systemd.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The longest that is heard at once, in bytes; a status is one line.
const LONGEST: usize = 64 << 10;
/// Sockets that may come with one message.
const SOCKETS: usize = 4;

/// Where the bridge's words arrive. The socket's file is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Ears {
    socket: UnixDatagram,
    path: PathBuf,
}

/// One thing that the bridge has said.
#[derive(Debug)]
pub(super) enum Word {
    /// It serves.
    Ready,
    /// What it is at.
    Status(String),
    /// It still works.
    Alive,
    /// It ends, and takes this much longer.
    Extend(Duration),
    /// A socket to be kept for its next run.
    Keep(OwnedFd),
    /// What is kept is of no use.
    Discard,
}

impl Ears {
    /// Listens at that path, in a folder that is this user's alone; needs a tokio runtime.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = StdDatagram::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        socket.set_nonblocking(true)?;
        sockopt::set_socket_passcred(&socket, true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, path: path.to_owned() })
    }

    /// What is said next by the process of that number. Others are not listened to.
    pub(super) async fn next(&self, speaker: Option<u32>) -> Vec<Word> {
        loop {
            let heard = self.socket.async_io(Interest::READABLE, || hear(&self.socket)).await;
            match heard {
                Ok((from, words)) if from == speaker && !words.is_empty() => return words,
                Ok(_) => {}
                // The next one may be as good as any; a socket that fails for ever must not keep the processor busy.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        // Where it cannot be removed, the next supervisor replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One message, and who has sent it.
fn hear(socket: &impl AsFd) -> io::Result<(Option<u32>, Vec<Word>)> {
    let mut bytes = vec![0; LONGEST];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS), ScmCredentials(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let (mut from, mut sockets) = (None, Vec::new());
    for message in beside.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(these) => sockets.extend(these),
            RecvAncillaryMessage::ScmCredentials(whose) => {
                from = u32::try_from(whose.pid.as_raw_nonzero().get()).ok();
            }
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(bytes.get(..received.bytes).unwrap_or_default()).into_owned();
    Ok((from, words(&text, sockets)))
}

/// What a message says, in its order but for READY, which comes last: what else is said then is said of it.
fn words(text: &str, mut sockets: Vec<OwnedFd>) -> Vec<Word> {
    let mut words = Vec::new();
    let mut ready = false;
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match (key, value) {
            ("READY", "1") => ready = true,
            ("STATUS", status) => words.push(Word::Status(status.to_owned())),
            ("WATCHDOG", "1") => words.push(Word::Alive),
            ("EXTEND_TIMEOUT_USEC", micros) => {
                words.extend(micros.parse().ok().map(|micros| Word::Extend(Duration::from_micros(micros))));
            }
            ("FDSTORE", "1") => words.extend(sockets.drain(..).map(Word::Keep)),
            ("FDSTOREREMOVE", "1") => words.push(Word::Discard),
            _ => {}
        }
    }
    words.extend(ready.then_some(Word::Ready));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_bridge_is_listened_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let ears = Ears::open(&path).unwrap();
        let mouth = StdDatagram::unbound().unwrap();
        mouth.connect(&path).unwrap();
        mouth.send(b"READY=1\nSTATUS=here: all\nX_OTHER=1").unwrap();
        let words = ears.next(Some(std::process::id())).await;
        assert!(matches!(&words[..], [Word::Status(status), Word::Ready] if status == "here: all"), "{words:?}");
        mouth.send(b"WATCHDOG=1").unwrap();
        let others = tokio::time::timeout(Duration::from_millis(50), ears.next(Some(1))).await;
        assert!(others.is_err(), "somebody else was listened to");
        drop(ears);
        assert!(!path.exists());
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        for text in ["", "=", "READY", "READY=0", "EXTEND_TIMEOUT_USEC=soon", "FDSTORE=1", "\0=\n\n"] {
            assert!(words(text, Vec::new()).is_empty(), "{text:?}");
        }
        let extended = words("EXTEND_TIMEOUT_USEC=1500000", Vec::new());
        assert!(matches!(extended[..], [Word::Extend(by)] if by == Duration::from_millis(1500)));
    }
}
