//! Function names: their printed form, and the selection of functions that are printed.

use super::release::GoRelease;

/// Returns the name as a traceback prints it (`printFuncName`): `panic` for `runtime.gopanic`, and type
/// arguments as `[...]` from Go 1.21. Before Go 1.21 the linker shortened type arguments.
pub fn printed_name(name: &[u8], release: GoRelease) -> Vec<u8> {
    if name == b"runtime.gopanic" {
        return b"panic".to_vec();
    }
    if !release.shortens_type_arguments() {
        return name.to_vec();
    }
    let open = name.iter().position(|&b| b == b'[');
    let close = name.iter().rposition(|&b| b == b']');
    let (Some(open), Some(close)) = (open, close) else { return name.to_vec() };
    if close <= open {
        return name.to_vec();
    }
    let (head, inner, tail) = (&name[..open], &name[open + 1..close], &name[close + 1..]);
    if !release.has_generic_methods() || !inner.contains(&b'[') {
        return [head, b"[...]", tail].concat();
    }
    // From Go 1.27 a generic method of a generic type keeps the text between both type argument lists.
    match between_lists(inner) {
        Between::One => [head, b"[...]", tail].concat(),
        Between::Two(first_end, second_start) => {
            [head, b"[...]", &inner[first_end + 1..second_start], b"[...]", tail].concat()
        }
        Between::Malformed => name.to_vec(),
    }
}

enum Between {
    /// One list, which may contain further lists.
    One,
    /// Two lists: end of the first, and start of the second.
    Two(usize, usize),
    Malformed,
}

/// Finds the lists in `inner`, the text between the first `[` and the last `]` (`funcNamePiecesForPrint`).
fn between_lists(inner: &[u8]) -> Between {
    let mut depth = 1i32;
    let (mut close, mut open) = (None, None);
    for (i, &b) in inner.iter().enumerate() {
        match b {
            b'[' => {
                depth += 1;
                if depth == 1 {
                    open = Some(i);
                    break;
                }
            }
            b']' => {
                depth -= 1;
                if depth < 0 {
                    break;
                }
                if depth == 0 {
                    close = Some(i);
                }
            }
            _ => {}
        }
    }
    match (depth, close, open) {
        (1, Some(close), Some(open)) if open > close => Between::Two(close, open),
        (1, None, None) => Between::One,
        _ => Between::Malformed,
    }
}

/// Returns true if a traceback without runtime frames prints the function (`showfuncinfo`). Wrappers and
/// panics are excluded, because they depend on neighbouring frames.
pub fn is_shown(name: &[u8], release: GoRelease) -> bool {
    if release.shows_finalizer_loops() && matches!(name, b"runtime.runFinalizers" | b"runtime.runCleanups") {
        return true;
    }
    name.contains(&b'.') && (!name.starts_with(b"runtime.") || is_exported_runtime(name, release))
}

/// Returns true if a function of the runtime counts as exported (`isExportedRuntime`). Before Go 1.23 only
/// the letter after the package name decides.
fn is_exported_runtime(name: &[u8], release: GoRelease) -> bool {
    let Some(name) = name.strip_prefix(b"runtime.") else { return false };
    let upper = |part: &[u8]| part.first().is_some_and(u8::is_ascii_uppercase);
    if !release.looks_at_receivers() {
        return upper(name);
    }
    let Some(dot) = name.iter().rposition(|&b| b == b'.') else { return upper(name) };
    let (receiver, method) = (&name[..dot], &name[dot + 1..]);
    let receiver = receiver.strip_prefix(b"(*").and_then(|r| r.strip_suffix(b")")).unwrap_or(receiver);
    upper(method) && (receiver.is_empty() || upper(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(name: &str, minor: u32) -> String {
        String::from_utf8(printed_name(name.as_bytes(), GoRelease::of_minor(minor))).unwrap()
    }

    #[test]
    fn type_arguments() {
        assert_eq!(printed("main.F[go.shape.int]", 26), "main.F[...]");
        assert_eq!(printed("main.(*T[go.shape.[]uint8]).M", 26), "main.(*T[...]).M");
        assert_eq!(printed("main.T[a[b]].M[c]", 26), "main.T[...]");
        assert_eq!(printed("main.T[a[b]].M[c]", 27), "main.T[...].M[...]");
        assert_eq!(printed("main.T[a[b]].M", 27), "main.T[...].M");
        assert_eq!(printed("main.T[[3]int]", 27), "main.T[...]");
        assert_eq!(printed("main.F[...]", 20), "main.F[...]");
        assert_eq!(printed("runtime.gopanic", 18), "panic");
        assert_eq!(printed("odd]name[", 24), "odd]name[");
    }

    #[test]
    fn runtime_functions_that_are_shown() {
        let shown = |name: &str, minor| is_shown(name.as_bytes(), GoRelease::of_minor(minor));
        assert!(shown("main.main", 26) && shown("runtime.GC", 26) && shown("runtime.Gosched", 20));
        assert!(!shown("runtime.gopark", 26) && !shown("_cgo_x", 26));
        assert!(shown("runtime.(*Frames).Next", 23) && !shown("runtime.(*Frames).Next", 22));
        assert!(!shown("runtime.(*mheap).Alloc", 24));
        assert!(shown("runtime.runCleanups", 25) && !shown("runtime.runFinalizers", 24));
        assert!(shown("runtime/pprof.Do", 26));
    }
}
