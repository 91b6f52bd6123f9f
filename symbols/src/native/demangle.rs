//! Demangling: names as in the source, from names as linkers use them.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

/// Maximum length of a mangled name in bytes. Longer names stay mangled.
const MAX_MANGLED: usize = 16 << 10;
/// Maximum length of a demangled name in bytes. A mangled name of some hundred bytes can represent gigabytes.
const MAX_SHOWN: usize = 16 << 10;
/// Maximum depth of types within types. The parser's default is less.
const MAX_DEPTH: u32 = 192;

/// Returns the name to show for a symbol. C++ names lose return type and parameters, Rust names lose the
/// hash. A name that is not mangled stays unchanged.
pub fn demangle(name: &str) -> String {
    let shown = if name.len() > MAX_MANGLED {
        None
    } else if is_rust(name) {
        rust(name)
    } else if name.starts_with("_Z") {
        cpp(name)
    } else {
        None
    };
    shown.filter(|s| !s.is_empty()).unwrap_or_else(|| name.to_owned())
}

/// Returns true if a name is mangled by a scheme of Rust. The legacy scheme is the scheme of C++ with a hash
/// as last part.
fn is_rust(name: &str) -> bool {
    if name.starts_with("_R") {
        return true;
    }
    let end = name.find(".llvm.").unwrap_or(name.len());
    let hash =
        name.get(..end).and_then(|n| n.strip_suffix('E')).and_then(|n| n.get(n.len().checked_sub(19)?..));
    name.starts_with("_ZN")
        && hash.and_then(|h| h.strip_prefix("17h")).is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn rust(name: &str) -> Option<String> {
    let symbol = rustc_demangle::try_demangle(name).ok()?;
    let mut shown = Limited::default();
    write!(shown, "{symbol:#}").ok()?;
    Some(shown.text)
}

fn cpp(name: &str) -> Option<String> {
    let symbol = Symbol::new_with_options(name, &ParseOptions::default().recursion_limit(MAX_DEPTH)).ok()?;
    let options = DemangleOptions::new().no_params().no_return_type().recursion_limit(MAX_DEPTH);
    let mut shown = Limited::default();
    symbol.structured_demangle(&mut shown, &options).ok()?;
    Some(shown.text)
}

/// Text with a maximum length.
#[derive(Default)]
struct Limited {
    text: String,
}

impl Write for Limited {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.text.len() + s.len() > MAX_SHOWN {
            return Err(fmt::Error);
        }
        self.text.push_str(s);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (mangled, shown) in [
            ("main", "main"),
            ("_Z3fooi", "foo"),
            ("_ZN5outer5Thing4workEv", "outer::Thing::work"),
            ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
            ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE.llvm.123", "core::fmt::Formatter::pad"),
            ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
            ("_Zbroken", "_Zbroken"),
            ("_R", "_R"),
            ("", ""),
        ] {
            assert_eq!(demangle(mangled), shown);
        }
        assert_eq!(demangle("_ZN12_GLOBAL__N_13addEv"), "(anonymous namespace)::add");
    }

    #[test]
    fn absurd_names() {
        // Substitutions that double the name each time.
        let mut name = "_Z1fI".to_owned();
        for i in 0..40 {
            name.push_str(&format!("1aI{}{}E", "S_", if i == 0 { "i" } else { "S0_" }));
        }
        name.push_str("Evv");
        assert!(demangle(&name).len() <= MAX_SHOWN);
        let deep = format!("_Z1f{}i", "P".repeat(15_000));
        assert!(demangle(&deep).len() <= MAX_SHOWN);
        assert!(demangle(&format!("_R{}", "NtB2_".repeat(3000))).len() <= MAX_SHOWN);
    }
}
