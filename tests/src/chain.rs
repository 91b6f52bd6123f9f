//! Plausibility check of the frames of a goroutine.
//!
//! Each return address must be behind a call that leads to the called function. The chain must end at the
//! goroutine's first function.

use std::collections::{BTreeMap, HashMap};

use inspector::arch::CallTarget;
use inspector::memory::Memory;
use inspector::process::Process;
use inspector::report::traceback::{Level, Printer};
use inspector::runtime::snapshot::{Frames, Slot, Snapshot};
use inspector::runtime::unwind::End;
use inspector::runtime::view::View;
use symbols::addr::RuntimeAddr;

/// Counts of the checked chains.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Number of chains that reach the goroutine's first function.
    pub complete: usize,
    /// Number of chains that end earlier, and of goroutines without frames, by the reported reason.
    pub marked: BTreeMap<String, usize>,
    /// Number of goroutines shown as they were last seen.
    pub unconfirmed: usize,
    /// Number of pairs of a return address and the called function.
    pub pairs: usize,
    /// Number of pairs with a call whose target the code names.
    pub direct: usize,
}

impl Tally {
    /// Total number of marked chains.
    #[must_use]
    pub fn all_marked(&self) -> usize {
        self.marked.values().sum()
    }

    /// Adds another tally.
    pub fn add(&mut self, other: &Self) {
        self.complete += other.complete;
        self.unconfirmed += other.unconfirmed;
        self.pairs += other.pairs;
        self.direct += other.direct;
        for (reason, count) in &other.marked {
            *self.marked.entry(reason.clone()).or_default() += count;
        }
    }
}

/// Chain of frames of a goroutine; empty if there are no frames.
#[derive(Debug, Default)]
pub struct Chain {
    /// Names as a traceback prints them, with inlined functions, innermost first.
    pub names: Vec<String>,
    /// True if the chain reaches the goroutine's first function.
    pub complete: bool,
}

/// Checker of the chains of one process.
#[derive(Debug)]
pub struct Chains<'v> {
    view: &'v View,
    memory: Box<dyn Memory>,
    printer: Printer<'v>,
    /// Pairs found possible: entry of the callee and return address. The value is true for a direct call.
    possible: HashMap<(u64, u64), bool>,
    /// Counts so far.
    pub tally: Tally,
}

/// Functions that enter their caller's frame without a call: after a fault or an injected preemption.
const INJECTED: [&[u8]; 4] =
    [b"runtime.sigpanic", b"runtime.sigpanic0", b"runtime.asyncPreempt", b"runtime.debugCallV2"];

impl<'v> Chains<'v> {
    /// Creates a checker for the process behind `view`.
    #[must_use]
    pub fn new(process: &Process, view: &'v View) -> Self {
        Self {
            view,
            memory: Box::new(process.memory()),
            printer: Printer::new(view, Level::System),
            possible: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// Checks one goroutine of a snapshot and counts it.
    ///
    /// # Errors
    ///
    /// Returns a description of the impossible frame, with the whole chain.
    pub fn check(&mut self, snapshot: &Snapshot, slot: &Slot) -> Result<Chain, String> {
        if !slot.confirmed {
            self.tally.unconfirmed += 1;
        }
        let stack = match &slot.frames {
            Frames::Walked(stack) => stack,
            Frames::Unavailable(why) => {
                let why = without_addresses(&why.to_string());
                *self.tally.marked.entry(why).or_default() += 1;
                return Ok(Chain::default());
            }
            Frames::Unwanted => return Ok(Chain::default()),
        };
        let Some(shape) = snapshot.shapes.get(stack.shape) else { return Err("no such shape".to_owned()) };
        let (names, _left_out) = self.printer.frames(stack, shape);
        let names: Vec<String> =
            names.iter().map(|frame| String::from_utf8_lossy(&frame.name).into_owned()).collect();
        let complete = stack.end == End::Complete;
        if complete {
            self.tally.complete += 1;
        } else {
            let end = format!("{:?}", stack.end);
            let end = end.split(['(', ' ']).next().unwrap_or(&end).to_owned();
            *self.tally.marked.entry(format!("walk ended by {end}")).or_default() += 1;
        }
        let explain = |what: String| {
            let pcs: Vec<String> = shape.pcs.iter().map(|pc| format!("{pc:#x}")).collect();
            format!(
                "goroutine {} ({}, confirmed: {}): {what}\n  frames: {}\n  pcs: {}\n  end: {:?}",
                slot.g.goid,
                slot.g.status(),
                slot.confirmed,
                names.join(" < "),
                pcs.join(" "),
                stack.end,
            )
        };
        if complete && !names.last().is_some_and(|name| OUTERMOST.contains(&name.as_str())) {
            return Err(explain("it ends in a function that begins nothing".to_owned()));
        }
        for pair in shape.pcs.windows(2) {
            let &[callee, ret] = pair else { continue };
            self.pair(callee, ret).map_err(explain)?;
        }
        Ok(Chain { names, complete })
    }

    /// Checks that the function at `callee` can have been called so that it returns to `ret`.
    fn pair(&mut self, callee: u64, ret: u64) -> Result<(), String> {
        let Some(callee) = self.view.modules.lookup(callee) else { return Ok(()) };
        let entry = callee.module.bias.runtime(callee.func.entry()).0;
        self.tally.pairs += 1;
        if let Some(&direct) = self.possible.get(&(entry, ret)) {
            self.tally.direct += usize::from(direct);
            return Ok(());
        }
        let direct = self.examine(entry, callee.func.name(), ret)?;
        self.possible.insert((entry, ret), direct);
        self.tally.direct += usize::from(direct);
        Ok(())
    }

    fn examine(&self, entry: u64, callee: &[u8], ret: u64) -> Result<bool, String> {
        let view = self.view;
        let name = String::from_utf8_lossy(callee).into_owned();
        let Some(caller) = view.modules.lookup(ret) else {
            return Err(format!("{name} returns to {ret:#x}, which is no Go code"));
        };
        let caller_entry = caller.module.bias.runtime(caller.func.entry()).0;
        // The runtime makes a first function look as if goexit called it, one instruction after its start.
        let made_up = caller.func.name() == b"runtime.goexit" && ret == caller_entry + 1;
        // A callback from C continues with the saved registers of the call into C, which are those of a
        // switch.
        let callback =
            callee == b"runtime.cgocallback" && caller.func.name() == b"runtime.systemstack_switch";
        if INJECTED.contains(&callee) || made_up || callback {
            return Ok(false);
        }
        let len = view.machine.longest_call();
        let code =
            self.memory.bytes(RuntimeAddr(ret - len as u64), len).map_err(|error| error.to_string())?;
        let caller = caller.func.name_text();
        match view.machine.call_before(&code, ret) {
            None => Err(format!("{name} returns to {ret:#x} in {caller}, where no call is before")),
            Some(CallTarget::Direct(target)) if target == entry || self.leads_to(target, entry, 2) => {
                Ok(true)
            }
            // The bytes of an operand can look like a direct call that ends at the same place.
            Some(CallTarget::Direct(target)) if view.modules.lookup(target).is_none() => Ok(false),
            // A function that switches to the system stack is known by this name, and is not on the
            // goroutine's stack.
            Some(CallTarget::Direct(target))
                if callee == b"runtime.systemstack_switch" && self.switches(target) =>
            {
                Ok(true)
            }
            Some(CallTarget::Direct(target)) => {
                let target = view.modules.lookup(target).map(|place| place.func.name_text().into_owned());
                let target = target.unwrap_or_default();
                Err(format!("{name} returns to {ret:#x} in {caller}, which called {target} there"))
            }
            Some(CallTarget::Indirect) => Ok(false),
        }
    }

    fn switches(&self, target: u64) -> bool {
        self.view.modules.lookup(target).is_some_and(|place| {
            matches!(
                place.func.name(),
                b"runtime.systemstack" | b"runtime.asmcgocall" | b"runtime.asmcgocall_landingpad"
            )
        })
    }

    /// Returns true if the code at `target` continues in the function at `entry` without its own frame: by at
    /// most `steps` jumps, or because `target` is in the middle of it (the unrolled loops that clear and copy
    /// memory).
    fn leads_to(&self, target: u64, entry: u64, steps: u32) -> bool {
        let Some(place) = self.view.modules.lookup(target) else { return false };
        let start = place.module.bias.runtime(place.func.entry()).0;
        if start == entry {
            return target == entry || place.func.name_starts_with(b"runtime.duff");
        }
        let end = place.module.bias.runtime(place.func.end()).0;
        let len = usize::try_from(end.saturating_sub(start)).unwrap_or(0).min(1 << 12);
        let Ok(code) = self.memory.bytes(RuntimeAddr(start), len) else { return false };
        let go_on = |at: usize, size: u64, displacement: i64| {
            let to = (start + at as u64 + size).wrapping_add_signed(displacement);
            let leaves = !(start..end).contains(&to);
            leaves && (to == entry || (steps > 1 && self.leads_to(to, entry, steps - 1)))
        };
        (0..code.len()).any(|at| match code.get(at..).unwrap_or_default() {
            // jmp rel32
            [0xe9, a, b, c, d, ..] => go_on(at, 5, i32::from_le_bytes([*a, *b, *c, *d]).into()),
            // jcc rel32
            [0x0f, 0x80..=0x8f, a, b, c, d, ..] => go_on(at, 6, i32::from_le_bytes([*a, *b, *c, *d]).into()),
            // jmp rel8, jcc rel8
            [0xeb | 0x70..=0x7f, a, ..] => go_on(at, 2, i64::from(i8::from_le_bytes([*a]))),
            _ => false,
        })
    }
}

/// First functions of stacks.
const OUTERMOST: [&str; 5] =
    ["runtime.goexit", "runtime.mstart", "runtime.rt0_go", "runtime.sigtramp", "goexit"];

/// Removes the addresses of a message, so that equal reasons count as one.
fn without_addresses(text: &str) -> String {
    let words: Vec<&str> =
        text.split(' ').map(|word| if word.starts_with("0x") { "0x…" } else { word }).collect();
    words.join(" ")
}
