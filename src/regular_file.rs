//! Files that flags and settings name: read whole, without waiting, only if regular and small.
//!
//! SIGHUP reads them in the loop's thread, so opening a FIFO or reading a device must not block it.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::sys;
use crate::units::Size;

/// The content of a file, and whether other users may read or change it.
pub struct Content {
    pub bytes: Vec<u8>,
    pub is_open_to_others: bool,
}

/// Reads a regular file of at most `most` bytes. The error is a reason without the path.
pub fn read(path: &Path, most: u64) -> Result<Content, String> {
    let unreadable = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => "a read would wait; expected a regular file".to_string(),
        _ => error.to_string(),
    };
    // Opening a device may have an effect, so its kind is known before.
    check(&std::fs::metadata(path).map_err(unreadable)?, most)?;
    let mut options = OpenOptions::new();
    // Another file may have taken the name meanwhile. Without these flags, opening a FIFO waits,
    // and a terminal could become that of this process. The standard library sets O_CLOEXEC.
    let file = options.read(true).custom_flags(sys::O_NONBLOCK | sys::O_NOCTTY).open(path);
    let file: File = file.map_err(unreadable)?;
    let facts = file.metadata().map_err(unreadable)?;
    check(&facts, most)?;
    let mut bytes = Vec::new();
    // The file may have grown since.
    (&file).take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(too_large(format!("more than {most}"), most));
    }
    Ok(Content { bytes, is_open_to_others: facts.mode() & 0o006 != 0 })
}

fn check(facts: &Metadata, most: u64) -> Result<(), String> {
    if let Some(kind) = irregular(facts.file_type()) {
        return Err(format!("it is a {kind}; expected a regular file"));
    }
    match facts.len() {
        length if length > most => Err(too_large(length.to_string(), most)),
        _ => Ok(()),
    }
}

fn too_large(length: String, most: u64) -> String {
    let accepted = Size(usize::try_from(most).unwrap_or(usize::MAX));
    format!("it has {length} bytes; accepted: up to {accepted}")
}

/// Returns the kind of a file in words. `None` for a regular one.
fn irregular(kind: FileType) -> Option<&'static str> {
    let kinds = [
        (kind.is_dir(), "directory"),
        (kind.is_fifo(), "FIFO"),
        (kind.is_socket(), "socket"),
        (kind.is_char_device(), "character device"),
        (kind.is_block_device(), "block device"),
        (!kind.is_file(), "special file"),
    ];
    kinds.into_iter().find(|(is_it, _)| *is_it).map(|(_, name)| name)
}

/// Returns the bytes behind a byte order mark, with which some editors begin a file in UTF-8.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A folder that is removed at the end of the test.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("slabd-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn error(path: &Path, most: u64) -> String {
        read(path, most).map(|_| ()).unwrap_err()
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let folder = Folder::new("irregular");
        let socket = folder.0.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let fifo = folder.0.join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
        assert!(made.success());
        let link = folder.0.join("link");
        std::os::unix::fs::symlink(&fifo, &link).unwrap();
        for (path, kind) in [
            (&folder.0, "directory"),
            (&socket, "socket"),
            (&fifo, "FIFO"),
            (&link, "FIFO"),
            (&"/dev/null".into(), "character device"),
            (&"/dev/zero".into(), "character device"),
            (&"/dev/tty".into(), "character device"),
        ] {
            let expected = format!("it is a {kind}; expected a regular file");
            assert_eq!(error(path, 100), expected, "{}", path.display());
        }
        assert!(error(&folder.0.join("none"), 100).contains("No such file"));
        let own = folder.0.join("own");
        std::fs::write(&own, "text").unwrap();
        let link = folder.0.join("link-to-own");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert_eq!(read(&link, 100).unwrap().bytes, b"text");
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = Folder::new("bounded");
        let path = folder.0.join("file");
        for (length, fits) in [(0, true), (1023, true), (1024, true), (1025, false)] {
            std::fs::write(&path, vec![b'x'; length]).unwrap();
            match read(&path, 1024) {
                Ok(content) => assert!(fits && content.bytes.len() == length),
                Err(why) => {
                    assert_eq!(why, format!("it has {length} bytes; accepted: up to 1KiB"));
                    assert!(!fits);
                }
            }
        }
        // A hole takes no memory, but says it has a gigabyte.
        File::create(&path).unwrap().set_len(1 << 30).unwrap();
        assert!(error(&path, 1024).contains("1073741824 bytes"));
        // Files of /proc say that they are empty.
        assert!(read(Path::new("/proc/self/status"), 1 << 20).unwrap().bytes.len() > 100);
        let endless = error(Path::new("/proc/self/maps"), 16);
        assert_eq!(endless, "it has more than 16 bytes; accepted: up to 16B");
    }

    #[test]
    fn a_file_that_others_may_read_or_write_is_recognised() {
        let folder = Folder::new("modes");
        let path = folder.0.join("file");
        std::fs::write(&path, "x").unwrap();
        for (mode, is_open) in
            [(0o600, false), (0o640, false), (0o644, true), (0o602, true), (0o666, true)]
        {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(read(&path, 10).unwrap().is_open_to_others, is_open, "{mode:o}");
        }
    }
}
