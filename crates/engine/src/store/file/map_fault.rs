//! What a process says when a part of the index cannot be read.
//!
//! LMDB maps the index into memory. Where the disk cannot read a page, or the file was cut, access to the map raises
//! SIGBUS, which by default ends the process without a word. The handler here says which file it was, where, and what to
//! do, and ends the process with an exit code of its own.
//!
//! A signal handler may call async-signal-safe functions only: this one calls `open`, `read`, `write`, `clock_gettime`,
//! `signal` and `_exit`, and allocates nothing.

/// The exit code of a process that could not read a mapped file: `EX_IOERR` of sysexits.
pub const MAP_FAULT_EXIT: i32 = 74;

/// Makes this process end with [`MAP_FAULT_EXIT`] and a message when a part of an index cannot be read. Call it once, at
/// the start. Without effect on Windows, where a read that fails this way ends the process with an exception.
pub fn report_map_faults() {
    #[cfg(unix)]
    handler::install();
}

/// Makes the message one JSON object in a line, with the fields of a log line, from now on.
pub fn report_map_faults_as_json() {
    #[cfg(unix)]
    handler::JSON.store(true, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(unix)]
mod handler {
    use std::{
        ffi::{CStr, c_int, c_void},
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::MAP_FAULT_EXIT;

    pub(super) static JSON: AtomicBool = AtomicBool::new(false);

    const MAPS: &CStr = c"/proc/self/maps";
    const ADVICE: &[u8] = b": the disk cannot read it, the file was cut, or its structure is damaged. The process ends; what was acknowledged and \
        is not there is still in the log. Look for disk errors in the kernel's log, then see what `verify` says; restore \
        a backup, or see what `repair` would drop";
    const TARGET: &[u8] = module_path!().as_bytes();

    pub(super) fn install() {
        #[expect(unsafe_code, reason = "there is no safe way to handle a fault")]
        // SAFETY: the structure is plain data, for which zero is valid; the handler has the signature that SA_SIGINFO
        // demands, and calls async-signal-safe functions only.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction =
                on_fault as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            // On the thread's own stack: the alternate ones that std makes are too small for the buffers below.
            action.sa_flags = libc::SA_SIGINFO;
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    }

    extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
        #[expect(unsafe_code, reason = "the kernel passes a pointer")]
        // SAFETY: with SA_SIGINFO the kernel passes a valid structure, which for SIGBUS has the address.
        let address = unsafe { (*info).si_addr() } as usize;
        let mut text = FixedText { bytes: [0; 2048], len: 0 };
        if find(address, &mut text) {
            text.add(ADVICE);
            if JSON.load(Ordering::Relaxed) {
                json_line(&text).write();
            } else {
                let mut line = FixedText { bytes: [0; 2048], len: 0 };
                line.add(b"error: ");
                line.add(text.text());
                line.add(b"\n");
                line.write();
            }
            #[expect(
                unsafe_code,
                reason = "other ways to exit are not allowed in a signal handler"
            )]
            // SAFETY: `_exit` is async-signal-safe and does not return.
            unsafe {
                libc::_exit(MAP_FAULT_EXIT)
            }
        }
        #[expect(unsafe_code, reason = "the fault is none of an index")]
        // SAFETY: `signal` is async-signal-safe. The access is repeated after the return, and ends the process.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }

    /// The message as a line of the log.
    fn json_line(message: &FixedText) -> FixedText {
        let mut line = FixedText { bytes: [0; 2048], len: 0 };
        line.add(b"{\"timestamp\":\"");
        line.add_time(now());
        line.add(b"\",\"level\":\"ERROR\",\"message\":\"");
        line.add_escaped(message.text());
        line.add(b"\",\"target\":\"");
        line.add(TARGET);
        line.add(b"\"}\n");
        line
    }

    /// Seconds since 1970.
    fn now() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[expect(unsafe_code, reason = "std does not promise that its clock is async-signal-safe")]
        // SAFETY: the structure is the caller's; `clock_gettime` is async-signal-safe.
        unsafe {
            libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time);
        }
        u64::try_from(time.tv_sec).unwrap_or(0)
    }

    /// Adds which byte of which index an address is mapped to. Returns false when it is no part of an index, as far as
    /// this system tells.
    fn find(address: usize, text: &mut FixedText) -> bool {
        let mut line = FixedText { bytes: [0; 2048], len: 0 };
        let mut piece = [0; 512];
        #[expect(unsafe_code, reason = "std may allocate")]
        // SAFETY: the path ends with a zero byte; `open` is async-signal-safe.
        let maps = unsafe { libc::open(MAPS.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if maps < 0 {
            text.add(b"a file that is mapped into memory, most likely the index, cannot be read");
            return true;
        }
        loop {
            #[expect(unsafe_code, reason = "std may allocate")]
            // SAFETY: the buffer has that many bytes; `read` is async-signal-safe.
            let read = unsafe { libc::read(maps, piece.as_mut_ptr().cast(), piece.len()) };
            let Some(bytes) = usize::try_from(read).ok().and_then(|read| piece.get(..read)) else {
                return false;
            };
            if bytes.is_empty() {
                return false;
            }
            for byte in bytes {
                if *byte != b'\n' {
                    line.add(&[*byte]);
                    continue;
                }
                if let Some((offset, path)) = mapped(line.text(), address) {
                    if !path.ends_with(b".mdb") {
                        return false;
                    }
                    text.add(path);
                    text.add(b" cannot be read at byte ");
                    text.add_number(offset);
                    return true;
                }
                line.len = 0;
            }
        }
    }

    /// The offset and the path of the file that a line of `/proc/self/maps` maps to `address`.
    pub(super) fn mapped(line: &[u8], address: usize) -> Option<(usize, &[u8])> {
        let (range, rest) = field(line)?;
        let dash = range.iter().position(|byte| *byte == b'-')?;
        let (from, to) = (hexadecimal(range.get(..dash)?)?, hexadecimal(range.get(dash + 1..)?)?);
        if !(from..to).contains(&address) {
            return None;
        }
        let (_permissions, rest) = field(rest)?;
        let (offset, rest) = field(rest)?;
        let (_device, rest) = field(rest)?;
        let (_inode, rest) = field(rest)?;
        let path = rest.iter().position(|byte| *byte != b' ').and_then(|at| rest.get(at..));
        Some((address - from + hexadecimal(offset)?, path.unwrap_or(&[])))
    }

    /// The text up to a space, and what follows the space.
    fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
        let end = text.iter().position(|byte| *byte == b' ').unwrap_or(text.len());
        Some((text.get(..end)?, text.get(end + 1..).unwrap_or(&[])))
    }

    fn hexadecimal(text: &[u8]) -> Option<usize> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        text.iter().try_fold(0_usize, |number, byte| {
            number.checked_mul(16)?.checked_add(digit(byte)? as usize)
        })
    }

    /// Text without allocation; what does not fit is cut.
    pub(super) struct FixedText {
        pub(super) bytes: [u8; 2048],
        pub(super) len: usize,
    }

    impl FixedText {
        pub(super) fn text(&self) -> &[u8] {
            self.bytes.get(..self.len).unwrap_or(&[])
        }

        /// As part of a JSON string. Bytes beyond ASCII may be no UTF-8, so they become question marks.
        pub(super) fn add_escaped(&mut self, text: &[u8]) {
            for byte in text {
                match byte {
                    b'"' | b'\\' => self.add(&[b'\\', *byte]),
                    b' '..=b'~' => self.add(&[*byte]),
                    _ => self.add(b"?"),
                }
            }
        }

        /// RFC 3339, of seconds since 1970.
        pub(super) fn add_time(&mut self, seconds: u64) {
            // Days since 0000-03-01: a leap day is the last of its year then.
            let days = seconds / 86_400 + 719_468;
            let (era, of_era) = (days / 146_097, days % 146_097);
            let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
            let of_year = of_era - (365 * year + year / 4 - year / 100);
            let month = (5 * of_year + 2) / 153;
            let day = of_year - (153 * month + 2) / 5 + 1;
            let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
            let time = seconds % 86_400;
            self.add_number((era * 400 + year) as usize);
            for (before, number) in [
                (b'-', month),
                (b'-', day),
                (b'T', time / 3_600),
                (b':', time / 60 % 60),
                (b':', time % 60),
            ] {
                self.add(&[before, b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
            }
            self.add(b"Z");
        }

        pub(super) fn add(&mut self, text: &[u8]) {
            for byte in text {
                if let Some(slot) = self.bytes.get_mut(self.len) {
                    *slot = *byte;
                    self.len += 1;
                }
            }
        }

        fn add_number(&mut self, number: usize) {
            if number >= 10 {
                self.add_number(number / 10);
            }
            self.add(&[b'0' + (number % 10) as u8]);
        }

        /// To standard error; an error there has nowhere to go.
        fn write(&self) {
            #[expect(unsafe_code, reason = "std may wait for a lock")]
            // SAFETY: that many bytes of the buffer are text; `write` is async-signal-safe.
            unsafe {
                libc::write(2, self.bytes.as_ptr().cast(), self.len);
            }
        }
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests;
