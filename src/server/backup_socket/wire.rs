//! What goes over the control socket: a line with a file attached, and lines of text back.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The one request there is: copy the index into the file that comes with it. The number changes with what follows.
const REQUEST: &[u8] = b"copy-index 1\n";

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BackupReply {
    /// The copy begins; it will have so many bytes, roughly.
    Copying {
        /// Bytes.
        total: u64,
    },
    /// Everything is in the file.
    Done,
    /// Nothing in the file counts, and why.
    Failed(String),
}

impl fmt::Display for BackupReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupReply::Copying { total } => writeln!(f, "copying {total}"),
            BackupReply::Done => writeln!(f, "done"),
            BackupReply::Failed(why) => writeln!(f, "failed {}", why.replace('\n', " ")),
        }
    }
}

impl BackupReply {
    /// Reads a line back; `None` for what no server of this version says.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end_matches('\n');
        match line.split_once(' ') {
            None => (line == "done").then_some(BackupReply::Done),
            Some(("copying", total)) => Some(BackupReply::Copying { total: total.parse().ok()? }),
            Some(("failed", why)) => Some(BackupReply::Failed(why.to_owned())),
            Some(_) => None,
        }
    }
}

/// Sends a request for a copy into `file`.
pub(super) fn send(server: &UnixStream, file: impl AsFd) -> io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    attached.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(server, &[IoSlice::new(REQUEST)], &mut attached, SendFlags::empty())?;
    Ok(())
}

/// Takes a request: the file to copy into, or why it cannot be understood.
pub(super) fn receive(client: &UnixStream) -> io::Result<Result<OwnedFd, String>> {
    let mut text = [0; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = RecvAncillaryBuffer::new(&mut space);
    // It is one small write, so it comes whole.
    let received =
        recvmsg(client, &mut [IoSliceMut::new(&mut text)], &mut attached, RecvFlags::empty())?;
    let file = attached.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let asked = text.get(..received.bytes).unwrap_or_default();
    Ok(match file {
        Some(file) if asked == REQUEST => Ok(file),
        _ => {
            Err("the server does not know this request; use the command of its version".to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_back() {
        for reply in [
            BackupReply::Copying { total: 0 },
            BackupReply::Copying { total: u64::MAX },
            BackupReply::Done,
            BackupReply::Failed("no space left in /a b".to_owned()),
        ] {
            assert_eq!(BackupReply::parse(&reply.to_string()), Some(reply));
        }
        for line in ["", "copying", "copying x", "finished", "done now"] {
            assert_eq!(BackupReply::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_file_comes_with_the_request() {
        use std::{fs::File, io::Write};
        let (one, other) = UnixStream::pair().unwrap();
        send(&one, tempfile::tempfile().unwrap()).unwrap();
        let file = receive(&other).unwrap().unwrap();
        File::from(file).write_all(b"written elsewhere").unwrap();
        (&one).write_all(b"hello\n").unwrap();
        assert!(receive(&other).unwrap().is_err(), "no file and other words");
    }
}
