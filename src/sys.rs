//! Thin wrappers over libc, where no well-kept crate offers the call. No other module has `unsafe`.
//!
//! Each function is one system or library call with typed arguments. Socket options that socket2
//! supports are set through socket2.

mod child;
mod datagrams;
mod inherited;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

pub use child::{SIGCONT, SIGSTOP, end_with_parent, limit_files, signal};
pub use datagrams::{Address, DatagramBatch, report_local_address};
pub use inherited::{adopt, borrow};

/// Flags of open(2): neither wait for the other end of a FIFO, nor take a terminal as one's own.
pub const O_NONBLOCK: i32 = libc::O_NONBLOCK;
pub const O_NOCTTY: i32 = libc::O_NOCTTY;

pub const SIGHUP: i32 = libc::SIGHUP;
pub const SIGINT: i32 = libc::SIGINT;
pub const SIGKILL: i32 = libc::SIGKILL;
pub const SIGTERM: i32 = libc::SIGTERM;
pub const SIGUSR1: i32 = libc::SIGUSR1;

/// The error numbers that other modules distinguish. errno(3).
pub mod errno {
    pub use libc::{
        EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, ECONNABORTED, ECONNREFUSED,
        ECONNRESET, EHOSTUNREACH, EINPROGRESS, EINTR, EINVAL, EMFILE, EMSGSIZE, ENETDOWN,
        ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENOPROTOOPT, ENOSPC, ENOTCONN, EPERM, EPIPE, EPROTO,
        ETIMEDOUT,
    };
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets a socket option of type int. setsockopt(2).
fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `value`, which is that long.
    check(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length)
    })
    .map(|_| ())
}

/// Raises the soft limit on open files to the hard one, and returns the limit then in force.
/// getrlimit(2).
pub fn raise_file_limit() -> io::Result<u64> {
    let (soft, hard) = file_limits()?;
    let raised = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: `raised` is a valid rlimit, only read by the call.
    match check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) }) {
        Ok(_) => Ok(hard),
        // If the kernel refuses, the present limit stays in force.
        Err(_) => Ok(soft),
    }
}

/// Returns the soft and the hard limit on open files. getrlimit(2).
pub fn file_limits() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, writable rlimit for the length of the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Returns the soft limits on address space and data segment, in bytes. `None` where there is no
/// limit. getrlimit(2).
pub fn memory_limits() -> [Option<u64>; 2] {
    [libc::RLIMIT_AS, libc::RLIMIT_DATA].map(|resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid, writable rlimit for the length of the call.
        check(unsafe { libc::getrlimit(resource, &mut limit) }).ok()?;
        Some(limit.rlim_cur).filter(|bytes| *bytes != libc::RLIM_INFINITY)
    })
}

/// Makes the kernel choose the socket's local port from `first..=last`. IP_LOCAL_PORT_RANGE, ip(7),
/// since Linux 6.3.
pub fn set_local_ports(socket: BorrowedFd<'_>, first: u16, last: u16) -> io::Result<()> {
    // From linux/in.h. The libc crate lacks it for some targets.
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let range = u32::from(last) << 16 | u32::from(first);
    set_option(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range.cast_signed())
}

/// Waits until a file is readable, at most for `timeout`. ppoll(2).
pub fn wait_readable(file: RawFd, timeout: Duration) -> io::Result<()> {
    let mut polled = libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    let time = libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: `polled` and `time` are valid for the length of the call; no signal mask is given.
    check(unsafe { libc::ppoll(&mut polled, 1, &time, std::ptr::null()) }).map(|_| ())
}

/// Sets how late sleeps of this thread may end. prctl(2), PR_SET_TIMERSLACK.
pub fn set_timer_slack(slack: Duration) -> io::Result<()> {
    let nanoseconds = slack.as_nanos() as libc::c_ulong;
    // SAFETY: this option takes a number and no pointer.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanoseconds) }).map(|_| ())
}

/// Returns free pages of the heap to the system, which glibc would keep. malloc_trim(3).
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer, and is thread-safe.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns the processor time of this process, user and system together. clock_gettime(2),
/// CLOCK_PROCESS_CPUTIME_ID.
pub fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call.
    match check(unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) }) {
        Ok(_) => Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        Err(_) => Duration::ZERO,
    }
}

/// Returns the time since the machine started. clock_gettime(2), CLOCK_MONOTONIC.
pub fn monotonic_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec for the length of the call.
    match check(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) }) {
        Ok(_) => Duration::new(time.tv_sec as u64, time.tv_nsec as u32),
        Err(_) => Duration::ZERO,
    }
}

/// Returns true if a write of a few KiB to standard error would not block. For a pipe, at least
/// PIPE_BUF bytes must be free (poll(2), pipe(7)).
pub fn can_write_to_stderr() -> bool {
    let mut file = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid, writable pollfd, and a timeout of zero.
    let ready = unsafe { libc::poll(&mut file, 1, 0) };
    ready == 1 && file.revents & libc::POLLOUT != 0
}

/// Returns the size of a memory page, in bytes. sysconf(3).
pub fn page_size() -> u64 {
    // SAFETY: sysconf takes no pointer.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Returns the bytes written to a TCP socket that its peer has not acknowledged. SIOCOUTQ, tcp(7).
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one int through the pointer.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Returns the buffer memory that the kernel holds for a socket, in bytes.
///
/// It covers received packets until they are read, and sent packets until they are acknowledged. It
/// excludes the socket's own structures, and fwd_alloc: a part of a page that is counted for later
/// packets, and that no memory stands behind. SO_MEMINFO, sock_diag(7).
pub fn socket_buffer_bytes(socket: BorrowedFd<'_>) -> io::Result<u64> {
    // The order of SK_MEMINFO_*: rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued,
    // optmem, backlog, drops.
    let mut words = [0u32; 9];
    let mut length = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `words`, which is that long.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &mut length,
        )
    })?;
    let [receive_allocated, _, _, _, _, send_queued, options, backlog, _] = words.map(u64::from);
    Ok(receive_allocated + send_queued + options + backlog)
}

/// Fixes the sizes of a socket's buffers, or lets the kernel adapt them. SO_BUF_LOCK, since Linux
/// 5.14.
///
/// An older kernel keeps every size that was set, and this call then does nothing.
pub fn fix_buffer_sizes(socket: BorrowedFd<'_>, send: bool, receive: bool) -> io::Result<()> {
    // SOCK_SNDBUF_LOCK and SOCK_RCVBUF_LOCK of linux/socket.h.
    let locks: libc::c_int = libc::c_int::from(send) | libc::c_int::from(receive) << 1;
    match set_option(socket, libc::SOL_SOCKET, libc::SO_BUF_LOCK, locks) {
        Err(error) if error.raw_os_error() != Some(libc::ENOPROTOOPT) => Err(error),
        _ => Ok(()),
    }
}

/// Makes the kernel choose the local port of a bound socket when it connects, so that one port can
/// serve connections to several peers. IP_BIND_ADDRESS_NO_PORT, ip(7).
pub fn choose_port_when_connecting(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Some fields of TCP_INFO.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpInfo {
    /// Of a listener: connections that wait to be accepted, from the field `tcpi_unacked`.
    pub accept_queue: u32,
    /// Of a listener: the maximum length of the accept queue, from the field `tcpi_sacked`.
    pub backlog: u32,
    pub bytes_acknowledged: u64,
    pub bytes_received: u64,
}

/// Reads the kernel's information about a TCP socket. TCP_INFO, tcp(7). The layout is `struct
/// tcp_info` of linux/tcp.h, which only grows.
pub fn tcp_info(socket: BorrowedFd<'_>) -> io::Result<TcpInfo> {
    // Offsets of the fields, in bytes. Linux has `tcpi_bytes_received`, the last of them, since
    // 4.1.
    const UNACKED: usize = 24;
    const SACKED: usize = 28;
    const BYTES_ACKED: usize = 120;
    const BYTES_RECEIVED: usize = 128;
    const LENGTH: usize = 136;
    let mut bytes = [0u8; LENGTH];
    let mut length = LENGTH as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `bytes`, which is that long.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &mut length,
        )
    })?;
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_ne_bytes(*word));
    let long = |at: usize| bytes[at..].first_chunk().map_or(0, |long| u64::from_ne_bytes(*long));
    Ok(TcpInfo {
        accept_queue: word(UNACKED),
        backlog: word(SACKED),
        bytes_acknowledged: long(BYTES_ACKED),
        bytes_received: long(BYTES_RECEIVED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    #[test]
    fn unread_bytes_count_as_buffer_memory_of_the_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let before = socket_buffer_bytes(server.as_fd()).unwrap();
        client.write_all(&[0; 10_000]).unwrap();
        while socket_buffer_bytes(server.as_fd()).unwrap() < before + 10_000 {
            std::thread::yield_now();
        }
        // After its bytes are read, an idle socket has none.
        let mut reader = &server;
        reader.read_exact(&mut [0; 10_000]).unwrap();
        assert_eq!((before, socket_buffer_bytes(server.as_fd()).unwrap()), (0, 0));
    }

    #[test]
    fn tcp_info_has_the_bytes_and_the_accept_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let waiting = tcp_info(listener.as_fd()).unwrap();
        assert_eq!((waiting.accept_queue, waiting.backlog), (1, 128));
        let (server, _) = listener.accept().unwrap();
        assert_eq!(tcp_info(listener.as_fd()).unwrap().accept_queue, 0);
        client.write_all(&[0; 1000]).unwrap();
        while tcp_info(server.as_fd()).unwrap().bytes_received < 1000 {
            std::thread::yield_now();
        }
        // The kernel may count the byte of the handshake as acknowledged.
        assert!((1000..=1001).contains(&tcp_info(client.as_fd()).unwrap().bytes_acknowledged));
    }

    #[test]
    fn processor_time_page_size_and_file_limit_are_plausible() {
        assert!(page_size().is_power_of_two());
        assert!(cpu_time() > Duration::ZERO);
        assert!(raise_file_limit().unwrap() > 0);
    }
}
