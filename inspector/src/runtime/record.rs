//! Structs of the runtime as read out of a process.

use symbols::addr::RuntimeAddr;
use symbols::layout::{Field, Struct, Table};

use crate::memory::{Memory, MemoryError};

/// Larger than any struct that is read whole (`runtime.mheap` has some 60 KiB).
const MAX_SIZE: u64 = 1 << 20;

/// Why a struct or a field of it could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The layout table does not have it.
    #[error("the layout of {of} is not known")]
    NoLayout {
        /// The struct.
        of: String,
    },
    /// The layout in use has no such field, or not one of that size.
    #[error("the layout of {of} has no field {field} of that size")]
    NoField {
        /// The struct.
        of: String,
        /// The field.
        field: String,
    },
    /// The target's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The bytes of a struct, whose fields are asked for by the names that the runtime's source has.
#[derive(Debug, Clone)]
pub struct Record<'t> {
    of: &'t str,
    layout: &'t Struct,
    at: RuntimeAddr,
    bytes: Vec<u8>,
}

impl<'t> Record<'t> {
    /// Reads the struct or variable `of` (`runtime.mheap_`) that is at `at`.
    ///
    /// # Errors
    /// [`RecordError::NoLayout`]; those of reading.
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

    /// The same struct from bytes that were read already.
    ///
    /// # Errors
    /// [`RecordError::NoLayout`].
    pub fn parse(
        table: &'t Table,
        of: &'t str,
        at: RuntimeAddr,
        bytes: Vec<u8>,
    ) -> Result<Self, RecordError> {
        Ok(Record { of, layout: layout(table, of)?, at, bytes })
    }

    /// Where it is.
    pub fn at(&self) -> RuntimeAddr {
        self.at
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether its layout has this field.
    pub fn has(&self, field: &str) -> bool {
        self.layout.field(field).is_some()
    }

    /// Where a field is in it.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn place(&self, field: &str) -> Result<Field, RecordError> {
        self.layout.field(field).ok_or_else(|| self.missing(field))
    }

    /// The address of a field in the process.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn address(&self, field: &str) -> Result<RuntimeAddr, RecordError> {
        Ok(self.at.plus(self.place(field)?.offset))
    }

    /// The bytes of a field.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn field(&self, field: &str) -> Result<&[u8], RecordError> {
        let place = self.place(field)?;
        let slice = || {
            let start = usize::try_from(place.offset).ok()?;
            self.bytes.get(start..start.checked_add(usize::try_from(place.size).ok()?)?)
        };
        slice().ok_or_else(|| self.missing(field))
    }

    /// A field of eight bytes.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn u64(&self, field: &str) -> Result<u64, RecordError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A field of eight bytes with a sign.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn i64(&self, field: &str) -> Result<i64, RecordError> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// A field of eight bytes that holds a floating point number.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn f64(&self, field: &str) -> Result<f64, RecordError> {
        self.array(field).map(f64::from_le_bytes)
    }

    /// A field of four bytes.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn u32(&self, field: &str) -> Result<u32, RecordError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A field of four bytes with a sign.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn i32(&self, field: &str) -> Result<i32, RecordError> {
        self.array(field).map(i32::from_le_bytes)
    }

    /// An unsigned field of one, two, four or eight bytes, whose size changed between releases.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
    pub fn unsigned(&self, field: &str) -> Result<u64, RecordError> {
        let bytes = self.field(field)?;
        if !matches!(bytes.len(), 1 | 2 | 4 | 8) {
            return Err(self.missing(field));
        }
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Ok(u64::from_le_bytes(word))
    }

    /// A field that is an array of words.
    ///
    /// # Errors
    /// [`RecordError::NoField`].
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
