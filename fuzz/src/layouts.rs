//! Struct layouts from DWARF.

use symbols::layout::from_dwarf;

use crate::input::Input;

/// The bytes are an ELF file, or its abbreviations and its debug information.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.u8() & 1 == 1 {
        let _ = from_dwarf(input.rest());
        return;
    }
    let len = usize::from(input.u8()) * 2;
    let abbreviations = input.bytes(len).to_vec();
    let elf = elf(&[(b".debug_abbrev", &abbreviations), (b".debug_info", input.rest())]);
    if let Ok(table) = from_dwarf(&elf) {
        for (_, layout) in table.structs() {
            for (_, field) in layout.fields() {
                assert!(field.offset + field.size <= layout.size);
            }
        }
    }
}

/// An ELF file of nothing but these sections.
pub fn elf(sections: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut names = vec![0u8];
    let mut contents = vec![0u8; 64];
    let mut table = vec![0u8; 64];
    let mut add = |name: &[u8], kind: u32, bytes: &[u8], names: &mut Vec<u8>, table: &mut Vec<u8>| {
        let mut entry = [0u8; 64];
        entry[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
        entry[4..8].copy_from_slice(&kind.to_le_bytes());
        names.extend_from_slice(name);
        names.push(0);
        let bytes = if name == b".shstrtab" { names.clone() } else { bytes.to_vec() };
        entry[24..32].copy_from_slice(&(contents.len() as u64).to_le_bytes());
        entry[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        entry[48] = 1;
        contents.extend(bytes);
        table.extend(entry);
    };
    for (name, bytes) in sections {
        add(name, 1, bytes, &mut names, &mut table);
    }
    add(b".shstrtab", 3, &[], &mut names, &mut table);
    let count = (table.len() / 64) as u16;
    let at = contents.len() as u64;
    contents[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    contents[16] = 2;
    contents[18] = 62;
    contents[20] = 1;
    contents[40..48].copy_from_slice(&at.to_le_bytes());
    contents[52] = 64;
    contents[54] = 56;
    contents[58] = 64;
    contents[60..62].copy_from_slice(&count.to_le_bytes());
    contents[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    contents.extend(table);
    contents
}
