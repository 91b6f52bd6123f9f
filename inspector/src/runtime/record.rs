//! Runtime structs read from a process.

use symbols::addr::RuntimeAddr;
use symbols::layout::{Field, Struct, Table};

use crate::memory::{Memory, MemoryError};

/// Maximum size in bytes of a struct that is read whole (`runtime.mheap` has about 60 KiB).
const MAX_SIZE: u64 = 1 << 20;

/// Reason why a struct or one of its fields is unavailable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The layout table lacks the struct.
    #[error("the layout of {of} is not known")]
    NoLayout {
        /// Name of the struct.
        of: String,
    },
    /// The layout in use lacks the field, or has it with another size.
    #[error("the layout of {of} has no field {field} of that size")]
    NoField {
        /// Name of the struct.
        of: String,
        /// Name of the field.
        field: String,
    },
    /// Memory of the target cannot be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// Bytes of a struct. Fields are accessed by their names in the runtime's source.
#[derive(Debug, Clone)]
pub struct Record<'t> {
    of: &'t str,
    layout: &'t Struct,
    at: RuntimeAddr,
    bytes: Vec<u8>,
}

impl<'t> Record<'t> {
    /// Reads the struct or variable `of`, such as `runtime.mheap_`, at the address `at`.
    ///
    /// # Errors
    /// Returns [`RecordError::NoLayout`] if the struct has no layout, and [`RecordError::Memory`] if it
    /// cannot be read.
    pub fn read(
        memory: &dyn Memory,
        table: &'t Table,
        of: &'t str,
        at: RuntimeAddr,
    ) -> Result<Self, RecordError> {
        let layout = layout(table, of)?;
        let len = usize::try_from(layout.size).unwrap_or_default();
        Ok(Record { of, layout, at, bytes: memory.bytes(at, len)? })
    }

    /// Creates the record from bytes that were read already.
    ///
    /// # Errors
    /// Returns [`RecordError::NoLayout`] if the struct has no layout.
    pub fn parse(
        table: &'t Table,
        of: &'t str,
        at: RuntimeAddr,
        bytes: Vec<u8>,
    ) -> Result<Self, RecordError> {
        Ok(Record { of, layout: layout(table, of)?, at, bytes })
    }

    /// Address of the struct in the process.
    pub fn at(&self) -> RuntimeAddr {
        self.at
    }

    /// Bytes of the struct.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true if the layout has this field.
    pub fn has(&self, field: &str) -> bool {
        self.layout.field(field).is_some()
    }

    /// Returns the offset and size of a field.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks the field.
    pub fn place(&self, field: &str) -> Result<Field, RecordError> {
        self.layout.field(field).ok_or_else(|| self.missing(field))
    }

    /// Returns the address of a field in the process.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks the field.
    pub fn address(&self, field: &str) -> Result<RuntimeAddr, RecordError> {
        Ok(self.at.plus(self.place(field)?.offset))
    }

    /// Returns the bytes of a field.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks the field.
    pub fn field(&self, field: &str) -> Result<&[u8], RecordError> {
        let place = self.place(field)?;
        let slice = || {
            let start = usize::try_from(place.offset).ok()?;
            self.bytes.get(start..start.checked_add(usize::try_from(place.size).ok()?)?)
        };
        slice().ok_or_else(|| self.missing(field))
    }

    /// Returns an unsigned field of eight bytes.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks a field of that size.
    pub fn u64(&self, field: &str) -> Result<u64, RecordError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// Returns a signed field of eight bytes.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks a field of that size.
    pub fn i64(&self, field: &str) -> Result<i64, RecordError> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// Returns a floating point field of eight bytes.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks a field of that size.
    pub fn f64(&self, field: &str) -> Result<f64, RecordError> {
        self.array(field).map(f64::from_le_bytes)
    }

    /// Returns an unsigned field of four bytes.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks a field of that size.
    pub fn u32(&self, field: &str) -> Result<u32, RecordError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// Returns a signed field of four bytes.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks a field of that size.
    pub fn i32(&self, field: &str) -> Result<i32, RecordError> {
        self.array(field).map(i32::from_le_bytes)
    }

    /// Returns an unsigned field of one, two, four or eight bytes, for fields that changed their size
    /// between releases.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks a field of such a size.
    pub fn unsigned(&self, field: &str) -> Result<u64, RecordError> {
        let bytes = self.field(field)?;
        if !matches!(bytes.len(), 1 | 2 | 4 | 8) {
            return Err(self.missing(field));
        }
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(u64::from_le_bytes(word))
    }

    /// Returns a field that is an array of words.
    ///
    /// # Errors
    /// Returns [`RecordError::NoField`] if the layout lacks the field.
    pub fn words(&self, field: &str) -> Result<Vec<u64>, RecordError> {
        let words = self.field(field)?.chunks_exact(8);
        Ok(words.filter_map(|w| w.try_into().ok().map(u64::from_le_bytes)).collect())
    }

    fn array<const N: usize>(&self, field: &str) -> Result<[u8; N], RecordError> {
        self.field(field)?.try_into().map_err(|_| self.missing(field))
    }

    fn missing(&self, field: &str) -> RecordError {
        RecordError::NoField { of: self.of.to_owned(), field: field.to_owned() }
    }
}

fn layout<'t>(table: &'t Table, of: &str) -> Result<&'t Struct, RecordError> {
    let known = table.get(of).filter(|layout| layout.size <= MAX_SIZE);
    known.ok_or_else(|| RecordError::NoLayout { of: of.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RecordedMemory;
    use symbols::version::GoVersion;

    #[test]
    fn fields_by_name() {
        let table =
            symbols::layout::lookup(symbols::image::Arch::Amd64, &GoVersion::release(24, 0)).unwrap().table;
        let at = RuntimeAddr(0x1000);
        let memory = RecordedMemory::default().with(at.0, (0..48).collect());
        let record = Record::read(&memory, &table, "runtime.bucket", at).unwrap();
        assert_eq!(record.u64("allnext"), Ok(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(record.address("nstk"), Ok(RuntimeAddr(0x1028)));
        assert_eq!(record.unsigned("typ"), Ok(0x1716_1514_1312_1110));
        assert!(matches!(record.u32("allnext"), Err(RecordError::NoField { .. })));
        assert!(matches!(record.u64("nothing"), Err(RecordError::NoField { .. })));
        assert!(matches!(
            Record::read(&memory, &table, "runtime.nothing", at),
            Err(RecordError::NoLayout { .. })
        ));
        assert!(matches!(
            Record::read(&memory, &table, "runtime.g", at),
            Err(RecordError::Memory(MemoryError::Unmapped(_)))
        ));
    }
}
