//! Names, lines and inlined functions of a C++ program, against what its compiler put there.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::process::Command;

use symbols::addr::LinkAddr;
use symbols::native::NativeSymbols;

const SOURCE: &str = "\
namespace outer {
static inline __attribute__((always_inline)) int inner(int n) {
    asm volatile(\"nop\\n.globl place\\nplace: nop\");
    return n + 1;
}
__attribute__((noinline)) int work(int n) {
    return inner(n) * 3;
}
}
int main(int count, char **) { return outer::work(count); }
";

#[test]
fn frames_of_a_cpp_program() {
    let folder = std::env::temp_dir().join(format!("gops-probe-native-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, program) = (folder.join("a.cpp"), folder.join("a"));
    std::fs::write(&source, SOURCE).unwrap();
    let parse = |options: &[&str]| {
        let done = Command::new("g++").args(options).arg("-o").arg(&program).arg(&source).status().unwrap();
        assert!(done.success());
        NativeSymbols::parse(Box::new(std::fs::read(&program).unwrap()), None, None)
    };
    for options in [&["-g", "-O2"][..], &["-g", "-O2", "-gz", "-no-pie"], &["-g", "-O2", "-gdwarf-4"]] {
        let symbols = parse(options);
        let place =
            (0..1 << 23).map(LinkAddr).find(|&a| symbols.function(a).is_some_and(|(n, _)| n == "place"));
        // The label lies in the function; the byte before it is the first nop.
        let frames = symbols.frames(LinkAddr(place.unwrap().0 - 1));
        let found: Vec<_> =
            frames.iter().map(|f| (f.name.as_str(), f.line, f.start_line, f.inlined)).collect();
        assert_eq!(found.last().unwrap(), &("outer::work", 7, 6, false), "{options:?} {frames:#?}");
        assert_eq!((found[0].1, found[0].2, found[0].3), (3, 2, true), "{options:?} {frames:#?}");
        assert!(found[0].0.contains("inner"), "{options:?} {frames:#?}");
        assert_eq!(frames[1].system_name, "_ZN5outer4workEi");
        assert!(frames.iter().all(|f| f.file.as_deref().is_some_and(|f| f.ends_with("a.cpp"))));
    }
    // Without symbols nothing is known, and nothing is made up.
    assert!(parse(&["-O2", "-s"]).frames(LinkAddr(0x1139)).is_empty());
    std::fs::remove_dir_all(&folder).unwrap();
}
