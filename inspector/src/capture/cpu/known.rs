//! What is known of each process that is sampled: its Go runtime, if it has one, and its other code.

use std::collections::HashMap;
use std::rc::Rc;

use symbols::addr::RuntimeAddr;
use symbols::tls::{self, GPlace};

use super::join::Foreign;
use super::source::{GoOffsets, GoTarget, OnGoroutine};
use crate::memory::{LiveMemory, Memory as _};
use crate::native::{Files, Native};
use crate::process::{Pid, Process};
use crate::profile::Mapping;
use crate::runtime::code::KnownCode;
use crate::runtime::open;
use crate::runtime::snapshot::details::{self, Labels};
use crate::runtime::view::View;

/// Label sets that are remembered for each process.
const MAX_LABEL_SETS: usize = 1 << 16;

/// A process that is sampled.
#[allow(missing_debug_implementations, reason = "a trait object has none")]
pub struct Known {
    /// Its pid.
    pub pid: Pid,
    /// Its name.
    pub name: String,
    /// The code that was mapped into it when it was looked at.
    pub mappings: Vec<Mapping>,
    /// Its Go runtime.
    pub view: Option<View>,
    /// Its Go code as far as it was looked up.
    pub code: KnownCode,
    /// Its other code.
    pub foreign: Box<dyn Foreign>,
    memory: LiveMemory,
    labels: HashMap<OnGoroutine, Rc<Labels>>,
}

impl Known {
    /// Looks at a process. That it is none of Go's is no failure. `files` are shared by all that are looked at.
    ///
    /// # Errors
    /// Where it is gone, or may not be looked at.
    pub fn open(process: &Process, files: &Files) -> Result<Self, crate::Error> {
        let native = Native::open(process, files)?;
        let view = match open::open(process) {
            Ok((view, _)) => Some(view),
            Err(error) => {
                tracing::info!("process {}: {error}", process.pid());
                None
            }
        };
        Ok(Known {
            pid: process.pid(),
            name: process.name().to_owned(),
            mappings: native.mappings(process),
            foreign: Box::new(native),
            view,
            code: KnownCode::default(),
            memory: LiveMemory::new(process.pid().as_raw()),
            labels: HashMap::new(),
        })
    }

    /// What a source has to know to find goroutines; `None` where that is not known.
    pub fn go_target(&self) -> Option<GoTarget> {
        let view = self.view.as_ref()?;
        let main = view.modules.main();
        let at = |link| main.bias.runtime(link).0;
        let g = |field| offset(view, "runtime.g", field);
        let tls_g = match tls::g_place(&main.image, &main.pclntab)? {
            GPlace::Offset(offset) => offset,
            GPlace::InWord(word) => self.memory.word(RuntimeAddr(at(word))).ok()?.cast_signed(),
        };
        Some(GoTarget {
            text: (at(main.data.text.start), at(main.data.text.end)),
            tls_g,
            g: GoOffsets {
                m: g("m")?,
                goid: g("goid")?,
                labels: g("labels")?,
                sched_sp: g("sched.sp")?,
                sched_bp: g("sched.bp")?,
            },
            m_curg: offset(view, "runtime.m", "curg")?,
        })
    }

    /// The labels of a goroutine. They do not change while it has them, but their memory may be used again by others: they
    /// are read once for each goroutine that has them.
    pub fn labels(&mut self, of: OnGoroutine) -> Rc<Labels> {
        let Some(view) = self.view.as_ref().filter(|_| of.labels != 0) else { return Rc::default() };
        if self.labels.len() >= MAX_LABEL_SETS {
            self.labels.clear();
        }
        let memory = &self.memory;
        let read = || Rc::new(details::labels(view, memory, of.labels).unwrap_or_default());
        Rc::clone(self.labels.entry(of).or_insert_with(read))
    }
}

fn offset(view: &View, of: &str, field: &str) -> Option<u32> {
    u32::try_from(view.table.field(of, field)?.offset).ok()
}
