//! Fields of `runtime.g` and `runtime.m` that a goroutine dump needs, resolved once from a layout table.

use symbols::layout::Table;

/// Error: the layout in use lacks a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the layout of {of} has no field {field}")]
pub struct MissingField {
    /// Name of the struct.
    pub of: &'static str,
    /// Name of the field.
    pub field: &'static str,
}

/// Field offsets in `runtime.g`, in bytes.
#[derive(Debug, Clone)]
pub struct GFields {
    /// Size of a g in bytes.
    pub size: usize,
    pub(super) stack_lo: usize,
    pub(super) stack_hi: usize,
    pub(super) m: usize,
    pub(super) sched_sp: usize,
    pub(super) sched_pc: usize,
    pub(super) syscallsp: usize,
    pub(super) syscallpc: usize,
    pub(super) atomicstatus: usize,
    pub(super) goid: usize,
    pub(super) waitsince: usize,
    pub(super) waitreason: usize,
    pub(super) tracking_seq: usize,
    pub(super) lockedm: usize,
    pub(super) gopc: usize,
    pub(super) startpc: usize,
    pub(super) ancestors: usize,
    pub(super) labels: usize,
    /// Offset of `parentGoid`. From Go 1.21.
    pub(super) parent_goid: Option<usize>,
    /// Offset of `syncGroup` in Go 1.24, of `bubble` from Go 1.25.
    pub(super) bubble: Option<usize>,
    /// Offset of `runningCleanups`. From Go 1.25.
    pub(super) running_cleanups: Option<usize>,
}

impl GFields {
    /// Takes the offsets from `table`.
    pub fn from_table(table: &Table) -> Result<Self, MissingField> {
        let optional = |field| table.field("runtime.g", field).and_then(|f| usize::try_from(f.offset).ok());
        let required = |field| optional(field).ok_or(MissingField { of: "runtime.g", field });
        let size = table.size("runtime.g").and_then(|s| usize::try_from(s).ok());
        let fields = GFields {
            size: size
                .filter(|s| (128..=MAX_SIZE).contains(s))
                .ok_or(MissingField { of: "runtime.g", field: "size" })?,
            stack_lo: required("stack.lo")?,
            stack_hi: required("stack.hi")?,
            m: required("m")?,
            sched_sp: required("sched.sp")?,
            sched_pc: required("sched.pc")?,
            syscallsp: required("syscallsp")?,
            syscallpc: required("syscallpc")?,
            atomicstatus: required("atomicstatus")?,
            goid: required("goid")?,
            waitsince: required("waitsince")?,
            waitreason: required("waitreason")?,
            tracking_seq: required("trackingSeq")?,
            lockedm: required("lockedm")?,
            gopc: required("gopc")?,
            startpc: required("startpc")?,
            ancestors: required("ancestors")?,
            labels: required("labels")?,
            parent_goid: optional("parentGoid"),
            bubble: optional("bubble").or_else(|| optional("syncGroup")),
            running_cleanups: optional("runningCleanups"),
        };
        Ok(fields)
    }
}

/// Maximum size of a `runtime.g` or `runtime.m`, in bytes. Real ones are much smaller.
const MAX_SIZE: usize = 1 << 16;

/// Field offsets in `runtime.m`, in bytes.
#[derive(Debug, Clone)]
pub struct MFields {
    /// Size of an m in bytes.
    pub size: usize,
    pub(super) g0: usize,
    pub(super) gsignal: usize,
    pub(super) procid: usize,
    pub(super) curg: usize,
    pub(super) id: usize,
    /// Offset of `alllink`. The field has moved within a minor release, so calibration verifies it.
    pub alllink: usize,
    pub(super) vdso_sp: Option<usize>,
    pub(super) vdso_pc: Option<usize>,
}

impl MFields {
    /// Takes the offsets from `table`.
    pub fn from_table(table: &Table) -> Result<Self, MissingField> {
        let optional = |field| table.field("runtime.m", field).and_then(|f| usize::try_from(f.offset).ok());
        let required = |field| optional(field).ok_or(MissingField { of: "runtime.m", field });
        let size = table.size("runtime.m").and_then(|s| usize::try_from(s).ok());
        Ok(MFields {
            size: size
                .filter(|s| (128..=MAX_SIZE).contains(s))
                .ok_or(MissingField { of: "runtime.m", field: "size" })?,
            g0: required("g0")?,
            gsignal: required("gsignal")?,
            procid: required("procid")?,
            curg: required("curg")?,
            id: required("id")?,
            alllink: required("alllink")?,
            vdso_sp: optional("vdsoSP"),
            vdso_pc: optional("vdsoPC"),
        })
    }
}
