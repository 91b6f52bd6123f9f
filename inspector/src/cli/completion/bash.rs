//! Completions for bash.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_complete::engine::complete;
use clap_complete::env::EnvCompleter;

/// Completion for bash by a script of our own. The library's script divides a word at a colon or an equals
/// sign (`name:orders`, `--format=text`), as bash itself does, and shows no descriptions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bash;

/// Environment variable with the index of the word to complete.
const INDEX: &str = "_GOPS_PROBE_INDEX";

/// Script for bash. It divides the line into words at white space alone. Candidates come one per line, with
/// their descriptions behind a tab. Several candidates are shown with their descriptions. No description gets
/// into the line, because the candidates differ before it. Bash replaces the text behind the last colon or
/// equals sign.
const SCRIPT: &str = r#"_gops_probe() {
    local line=${COMP_LINE:0:COMP_POINT} words word head i width=0
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    word=${words[${#words[@]} - 1]}
    head=${word%"${word##*[:=]}"}
    local candidates=()
    while IFS= read -r i; do
        candidates+=("$i")
    done < <(VARIABLE=bash INDEX=$((${#words[@]} - 1)) "${1/#\~/$HOME}" -- "${words[@]}" 2>/dev/null)
    COMPREPLY=()
    for i in "${candidates[@]}"; do
        i=${i%%$'\t'*}
        i=${i#"$head"}
        ((${#i} <= width)) || width=${#i}
    done
    for i in "${candidates[@]}"; do
        local value=${i%%$'\t'*} about=
        [[ $i != *$'\t'* ]] || about=${i#*$'\t'}
        value=${value#"$head"}
        if ((${#candidates[@]} > 1 && COMP_TYPE != 37 && COMP_TYPE != 42)) && [[ -n $about ]]; then
            printf -v value '%-*s  (%s)' "$width" "$value" "$about"
        fi
        COMPREPLY+=("$value")
    done
    if ((${#COMPREPLY[@]} == 1)) && [[ ${COMPREPLY[0]} == *[=/:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o nosort -F _gops_probe PROGRAM 2>/dev/null || complete -o bashdefault -F _gops_probe PROGRAM
"#;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        program: &str,
        _completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let script = SCRIPT.replace("VARIABLE", variable).replace("INDEX", INDEX).replace("PROGRAM", program);
        out.write_all(script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let index = std::env::var(INDEX).ok().and_then(|index| index.parse().ok()).unwrap_or_default();
        for candidate in complete(command, words, index, directory)? {
            write!(out, "{}", candidate.get_value().to_string_lossy())?;
            // The first sentence of a long description is enough to tell candidates apart.
            if let Some(line) = candidate.get_help().map(ToString::to_string)
                && let Some(first) = line.lines().next()
            {
                let end = first.find([':', ';']).unwrap_or(first.len());
                write!(out, "\t{}", first.get(..end).unwrap_or(first))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
