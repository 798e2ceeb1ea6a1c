//! Who has a TCP port, as far as this user may see (proc(5): `/proc/net/tcp`, `/proc/PID/fd`).

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Whether this user could listen on that address now. Nobody can connect meanwhile.
///
/// # Errors
/// As listening there would give.
pub fn try_bind(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // As a bridge binds it: connections that have ended are in nobody's way.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(rustix::net::bind(&socket, &address)?)
}

/// The process that listens on that port: `node (PID 4711)`. `None` when it is another user's, or nobody does.
#[must_use]
pub fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let owner = processes.filter(|process| has_digits(process)).find(|process| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(Result::ok);
        open.filter_map(|file| fs::read_link(file.path()).ok())
            .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
    })?;
    let name = fs::read_to_string(owner.join("comm")).unwrap_or_default();
    Some(format!("{} (PID {})", name.trim(), owner.file_name()?.to_string_lossy()))
}

fn has_digits(process: &Path) -> bool {
    process.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
}

/// The inodes of the sockets that listen on that port.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|fields| {
        let bound = fields.get(1).and_then(|address| address.rsplit_once(':'));
        let bound = bound.and_then(|(_, bound)| u16::from_str_radix(bound, 16).ok());
        bound == Some(port) && fields.get(3) == Some(&LISTEN)
    })
    .filter_map(|fields| fields.get(9).map(ToString::to_string))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_free_until_somebody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(try_bind(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        try_bind(address).unwrap();
        try_bind(address).unwrap();
    }

    #[test]
    fn takes_only_listening_sockets_of_that_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0\n\
            1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0 20 4 30 10 -1\n\
            2: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4244 1 0 100 0 0 10 0\n";
        assert_eq!(listeners(table, 8080), ["4242"]);
        assert!(listeners(table, 80).is_empty());
        assert!(listeners("", 80).is_empty());
    }

    #[test]
    fn names_the_process_that_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let holder = holder(port).expect("this process");
        assert!(holder.ends_with(&format!("(PID {})", std::process::id())), "{holder}");
    }
}
