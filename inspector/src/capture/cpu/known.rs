//! What is known of each process that is sampled: its Go runtime, if it has one, and its other code.

use std::collections::HashMap;
use std::rc::Rc;

use symbols::addr::RuntimeAddr;
use symbols::tls::{self, GPlace};

use super::join::Foreign;
use super::pointers::PointersOnly;
use super::source::{GoOffsets, GoTarget, OnGoroutine};
use crate::memory::{LiveMemory, Memory as _, ReadCost};
use crate::process::{Pid, Process};
use crate::profile::{Mapping, mappings};
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
    /// What it cost to find its runtime.
    attached: ReadCost,
    memory: LiveMemory,
    labels: HashMap<OnGoroutine, Rc<Labels>>,
}

impl Known {
    /// Looks at a process. That it is none of Go's is no failure.
    ///
    /// # Errors
    /// Where it is gone, or may not be looked at.
    pub fn open(process: &Process) -> Result<Self, crate::Error> {
        let mapped = mappings::of(process)?;
        let (view, attached) = match open::open(process) {
            Ok((view, attached)) => (Some(view), attached),
            Err(error) => {
                tracing::info!("process {}: {error}", process.pid());
                (None, ReadCost::default())
            }
        };
        Ok(Known {
            pid: process.pid(),
            name: process.name().to_owned(),
            foreign: Box::new(PointersOnly::new(mapped.iter().map(|m| (m.start, m.end)).collect())),
            mappings: mapped,
            view,
            attached,
            code: KnownCode::default(),
            memory: LiveMemory::new(process.pid().as_raw()),
            labels: HashMap::new(),
        })
    }

    /// What was read from its memory so far.
    pub fn cost(&self) -> ReadCost {
        let read = self.memory.cost();
        ReadCost { bytes: self.attached.bytes + read.bytes, calls: self.attached.calls + read.calls }
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
