//! Names of kernel functions, from `/proc/kallsyms`.

use super::NativeFrame;

/// Maximum number of symbols. The kernel of a distribution, with its modules, has a quarter of a million.
const MAX_SYMBOLS: usize = 4 << 20;
const MAX_NAME: usize = 512;
/// Maximum length of a function in bytes. An address further after a symbol belongs to something else.
const MAX_FUNCTION: u64 = 4 << 20;

/// Kernel functions, sorted by address.
#[derive(Debug, Clone, Default)]
pub struct KernelSymbols {
    /// Address, offset and length of the name of each function, sorted by address.
    functions: Vec<(u64, u32, u16)>,
    names: String,
}

impl KernelSymbols {
    /// Parses the text: lines such as `ffffffff81000000 T _stext`, with `[module]` after names in modules.
    /// Without the right to see addresses, all addresses are 0; the result is then empty.
    pub fn parse(text: &str) -> Self {
        let mut symbols = KernelSymbols::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") || name.len() > MAX_NAME {
                continue;
            }
            let Ok(at) = u32::try_from(symbols.names.len()) else { break };
            if symbols.functions.len() >= MAX_SYMBOLS {
                break;
            }
            symbols.names.push_str(name);
            if let Some(module) = words.next().filter(|m| m.len() <= MAX_NAME) {
                symbols.names.push(' ');
                symbols.names.push_str(module);
            }
            let length = symbols.names.len() - at as usize;
            symbols.functions.push((address, at, u16::try_from(length).unwrap_or(0)));
        }
        // Choice between aliases: the first in the text is shown, as in other tools.
        symbols.functions.sort_by_key(|&(address, ..)| address);
        symbols.functions.dedup_by_key(|&mut (address, ..)| address);
        symbols
    }

    /// Returns true if no function is known: the text had no functions or no addresses.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Returns the name of the function at an address. For a module, its name in brackets follows.
    pub fn name(&self, address: u64) -> Option<&str> {
        let index = self.functions.partition_point(|&(start, ..)| start <= address).checked_sub(1)?;
        let &(start, at, length) = self.functions.get(index)?;
        if address - start > MAX_FUNCTION {
            return None;
        }
        self.names.get(at as usize..at as usize + usize::from(length))
    }

    /// Returns the frame at an address.
    pub fn frame(&self, address: u64) -> Option<NativeFrame> {
        let name = self.name(address)?;
        let function = name.split(' ').next().unwrap_or(name);
        Some(NativeFrame {
            name: function.to_owned(),
            system_name: function.to_owned(),
            ..NativeFrame::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        let symbols = KernelSymbols::parse(
            "ffffffff81000000 T _stext\nffffffff81000000 T _text\nffffffff81000100 t do_work\n\
             ffffffff81000180 D data\nffffffffc0000000 t run\t[some_module]\nnonsense\n\n0 x\n",
        );
        assert_eq!(symbols.name(0xffff_ffff_8100_0010), Some("_stext"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0190), Some("do_work"));
        assert_eq!(symbols.name(0xffff_ffff_c000_0010), Some("run [some_module]"));
        assert_eq!(symbols.frame(0xffff_ffff_c000_0010).map(|f| f.name), Some("run".to_owned()));
        assert_eq!(symbols.name(0xffff_ffff_8000_0000), None);
        assert_eq!(symbols.name(0xffff_ffff_f000_0000), None);
        // Text for a reader without rights.
        assert!(KernelSymbols::parse("0000000000000000 T _stext\n").is_empty());
    }
}
