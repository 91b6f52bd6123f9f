//! Machine amd64, also called x86-64.

mod frames;
mod references;
mod tls;

pub(super) use frames::COLUMNS;
pub(crate) use iced_x86::Mnemonic;

use super::{Columns, Machine};
use crate::addr::{CodeAddr, LinkAddr};
use crate::cfi::Row;
use crate::globals::code::Code;
use crate::tls::GPlace;

/// Implementation of [`Machine`] for amd64.
#[derive(Debug)]
pub(super) struct Amd64;

impl Machine for Amd64 {
    fn decode(&self, entry: LinkAddr, code: &[u8]) -> Code {
        references::decode(entry, code)
    }

    fn g_place(&self, code: &[u8], entry: LinkAddr) -> Option<GPlace> {
        tls::g_place(code, entry)
    }

    fn columns(&self) -> &'static Columns {
        &COLUMNS
    }

    fn row_of_code(&self, at: CodeAddr, read: &dyn Fn(LinkAddr, usize) -> Option<Vec<u8>>) -> Option<Row> {
        frames::row_of_code(at, read)
    }
}
