//! Writes of data words into a process.

use std::io::IoSlice;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_writev};
use symbols::addr::RuntimeAddr;

use crate::Error;
use crate::memory::Memory;
use crate::process::access::Access;
use crate::process::maps::Mapping;
use crate::process::{Process, living_thread};

/// Width of a word in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Width of one byte: `bool`.
    One,
    /// Width of four bytes: `int32`, `uint32`.
    Four,
    /// Width of eight bytes: `int64`, `uint64`, `uintptr`.
    Eight,
}

impl Width {
    /// Returns the width of this number of bytes.
    pub fn of(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Width::One),
            4 => Some(Width::Four),
            8 => Some(Width::Eight),
            _ => None,
        }
    }

    /// Number of bytes.
    pub fn bytes(self) -> usize {
        match self {
            Width::One => 1,
            Width::Four => 4,
            Width::Eight => 8,
        }
    }

    /// Truncates a number to this width.
    pub fn cut(self, value: u64) -> u64 {
        match self {
            Width::One => value & 0xff,
            Width::Four => value & 0xffff_ffff,
            Width::Eight => value,
        }
    }
}

/// Word to write, with its old and its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Name of the word in the runtime's source, for people: `gcController.gcPercent`.
    pub name: String,
    /// Address of the word.
    pub at: RuntimeAddr,
    /// Width of the word.
    pub width: Width,
    /// Value that the word must hold before the write.
    pub before: u64,
    /// Value that the word holds after the write.
    pub after: u64,
}

/// Mismatch: a word held another value than the decision to write it was based on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Name of the word.
    pub name: String,
    /// Value that was found.
    pub found: u64,
}

/// Result of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Success: all words are written.
    Written,
    /// Mismatch: no word is written, because one of them changed meanwhile.
    Changed(Changed),
}

/// Writer of words into one process, with a record of all writes.
#[derive(Debug)]
pub struct Writer<'p> {
    process: &'p Process,
    memory: Box<dyn Memory>,
    mappings: Vec<Mapping>,
    written: Vec<Word>,
    dry: bool,
}

impl<'p> Writer<'p> {
    /// Creates a writer for a process; a `dry` writer only records.
    ///
    /// # Errors
    /// Returns an error if the mappings of the process cannot be read.
    pub fn new(process: &'p Process, dry: bool) -> Result<Self, Error> {
        let mappings = process.mappings()?;
        let memory = Box::new(process.memory());
        Ok(Writer { process, memory, mappings, written: Vec::new(), dry })
    }

    /// Checks that a word may be written: it must be aligned and in a page of data.
    ///
    /// # Errors
    /// Returns [`Error::Uncalibrated`] if the word may not be written.
    pub fn check_place(&self, at: RuntimeAddr, width: Width, name: &str) -> Result<(), Error> {
        let refuse = |why: &str| {
            let what = format!("{name} would be at {at}, {why}: nothing is written");
            Err(Error::Uncalibrated { pid: self.process.pid(), what })
        };
        let bytes = width.bytes() as u64;
        if !at.0.is_multiple_of(bytes) {
            return refuse("which is not aligned");
        }
        match self.mappings.iter().find(|m| m.contains(at.0)) {
            Some(m) if m.executable => refuse("which is code"),
            Some(m) if !m.writable || !m.readable => refuse("which the program cannot write"),
            Some(m) if at.0 + bytes > m.end => refuse("across the end of a mapping"),
            Some(_) => Ok(()),
            None => refuse("where nothing is mapped"),
        }
    }

    /// Reads the present value of a word.
    ///
    /// # Errors
    /// Returns an error if the word cannot be read.
    pub fn read(&self, at: RuntimeAddr, width: Width) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..width.bytes()).unwrap_or_default();
        self.memory.read(at, part).map_err(|e| self.process.explain_memory(e))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes all of `words` in one system call, or none. Each address and value is checked immediately
    /// before.
    ///
    /// # Errors
    /// Returns an error if a word may not be written, if the pid now belongs to another process, or if the
    /// kernel denies the write.
    pub fn write(&mut self, words: &[Word]) -> Result<Outcome, Error> {
        for word in words {
            self.check_place(word.at, word.width, &word.name)?;
        }
        self.process.check()?;
        for word in words {
            let found = self.read(word.at, word.width)?;
            if found != word.width.cut(word.before) {
                return Ok(Outcome::Changed(Changed { name: word.name.clone(), found }));
            }
        }
        if !self.dry {
            self.transfer(words)?;
        }
        self.written.extend(words.iter().cloned());
        Ok(Outcome::Written)
    }

    fn transfer(&self, words: &[Word]) -> Result<(), Error> {
        let values: Vec<[u8; 8]> = words.iter().map(|w| w.after.to_le_bytes()).collect();
        let local: Vec<IoSlice<'_>> = (values.iter().zip(words))
            .map(|(value, word)| IoSlice::new(value.get(..word.width.bytes()).unwrap_or_default()))
            .collect();
        let remote: Vec<RemoteIoVec> = words
            .iter()
            .filter_map(|w| Some(RemoteIoVec { base: usize::try_from(w.at.0).ok()?, len: w.width.bytes() }))
            .collect();
        let total: usize = words.iter().map(|w| w.width.bytes()).sum();
        let pid = nix::unistd::Pid::from(self.process.pid());
        let io = |errno: Errno| std::io::Error::from_raw_os_error(errno as i32);
        let mut result = process_vm_writev(pid, &local, &remote);
        if result == Err(Errno::ESRCH)
            && let Some(thread) = living_thread(self.process.pid())
        {
            self.process.check()?;
            result = process_vm_writev(thread.into(), &local, &remote);
        }
        match result {
            Ok(n) if n == total => Ok(()),
            // Each word lies in one page, so a partial write ends between two words.
            Ok(n) => Err(Error::Failed(format!(
                "process {}: only {n} of {total} bytes could be written",
                self.process.pid()
            ))),
            Err(Errno::ESRCH) => Err(crate::process::Error::Exited(self.process.pid()).into()),
            Err(errno) => Err(self.process.explain("write the memory", Access::Attach, io(errno)).into()),
        }
    }

    /// Words written so far, in order; for a dry writer, the words that would have been written.
    pub fn written(&self) -> &[Word] {
        &self.written
    }

    /// Returns true if the writer only records and writes nothing.
    pub fn is_dry(&self) -> bool {
        self.dry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins this very process, which holds the words of the tests.
    fn ours() -> Process {
        Process::pin(u64::from(std::process::id()).try_into().unwrap()).unwrap()
    }

    fn word(at: u64, width: Width, before: u64, after: u64) -> Word {
        Word { name: "test".to_owned(), at: RuntimeAddr(at), width, before, after }
    }

    #[test]
    fn only_what_still_holds_the_old_value() {
        let process = ours();
        let data: Box<[std::sync::atomic::AtomicU64; 2]> = Box::default();
        let at = data.as_ptr() as u64;
        let value = |i: usize| data[i].load(std::sync::atomic::Ordering::SeqCst);
        let mut writer = Writer::new(&process, false).unwrap();
        let both = [word(at, Width::Eight, 0, 7), word(at + 8, Width::Four, 1, 9)];
        let changed = Outcome::Changed(Changed { name: "test".to_owned(), found: 0 });
        assert_eq!(writer.write(&both).unwrap(), changed);
        assert_eq!((value(0), value(1)), (0, 0));
        assert!(writer.written().is_empty());
        let both = [word(at, Width::Eight, 0, 7), word(at + 8, Width::Four, 0, u64::MAX)];
        assert_eq!(writer.write(&both).unwrap(), Outcome::Written);
        assert_eq!((value(0), value(1)), (7, 0xffff_ffff));
        assert_eq!(writer.written(), both);
    }

    #[test]
    fn nothing_but_data() {
        static CONSTANT: [u8; 64] = [3; 64];
        let process = ours();
        let mut writer = Writer::new(&process, false).unwrap();
        let code = ours as fn() -> Process as usize as u64 & !7;
        let constant = (CONSTANT.as_ptr() as u64).next_multiple_of(8);
        let data = Box::new(0u64);
        let odd = &raw const *data as u64 + 2;
        for (at, why) in
            [(code, "is code"), (constant, "cannot write"), (8, "nothing is mapped"), (odd, "aligned")]
        {
            let before = writer.read(RuntimeAddr(at), Width::Four).unwrap_or(0);
            let error = writer.write(&[word(at, Width::Four, before, before)]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(writer.written().is_empty());
    }
}
