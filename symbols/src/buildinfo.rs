//! Build info blob that the Go linker puts into every program (Go package `debug/buildinfo`).

use serde::Serialize;

use crate::addr::LinkAddr;
use crate::image::Image;
use crate::version::GoVersion;

const MAGIC: &[u8; 14] = b"\xff Go buildinf:";
const ALIGN: u64 = 16;
const HEADER: usize = 32;
/// Flag bits at byte 15 of the header: big-endian pointers, and inline strings after the header (Go 1.18 and
/// later).
const FLAG_BIG_ENDIAN: u8 = 1;
const FLAG_INLINE: u8 = 2;
/// Marks that the linker puts around the list of modules (`cmd/go/internal/modload`: `infoStart`, `infoEnd`).
/// They make the list easy to find in a program.
const MODULES_BEGIN: &[u8; 16] = b"\x30\x77\xaf\x0c\x92\x74\x08\x02\x41\xe1\xc1\x07\xe6\xd6\x18\xe6";
const MODULES_END: &[u8; 16] = b"\xf9\x32\x43\x31\x86\x18\x20\x72\x00\x82\x42\x10\x41\x16\xd8\xf2";
/// Maximum lengths of a version and of a module list, in bytes; real ones are shorter.
const MAX_VERSION: u64 = 1 << 10;
const MAX_MODINFO: u64 = 16 << 20;
/// Maximum numbers of modules and of settings. In memory, they need many times the size of their text.
const MAX_MODULES: usize = 1 << 16;
const MAX_SETTINGS: usize = 1 << 12;
const PIECE: usize = 1 << 20;

/// Module that was compiled into the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Import path of the module.
    pub path: String,
    /// Module version; `(devel)` for a working tree.
    pub version: String,
    /// Checksum `h1:…`; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sum: String,
    /// Module that replaced this module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<Box<Module>>,
}

/// Information that the linker wrote about the build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// Version, as `runtime.Version()` returns it. A linker option can set it to any text
    /// (`-X runtime.buildVersion=…`).
    pub version: String,
    /// Import path of the main package.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Main module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<Module>,
    /// Modules that the main module depends on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deps: Vec<Module>,
    /// Build settings such as `-race`, `GOAMD64`, `vcs.revision`, in the order of the blob.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// Returns the value of a build setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Returns the Go version, with the experiments that the settings name. `None` if the version text is no
    /// Go version.
    pub fn go_version(&self) -> Option<GoVersion> {
        let version = GoVersion::parse(&self.version)?;
        Some(version.with_experiments(self.setting("GOEXPERIMENT").unwrap_or_default()))
    }
}

/// Searches for the blob: first in the writable segments, where linkers put it, then in the others.
///
/// The magic alone is no proof: programs that read build info contain it too. A hit is valid only if a Go
/// version follows that parses. Another text is valid if a list of modules in its frame follows.
pub fn find(image: &Image) -> Option<BuildInfo> {
    let segments = image.segments();
    let order = segments.iter().filter(|s| s.writable).chain(segments.iter().filter(|s| !s.writable));
    for (base, bytes) in image.pieces(order, PIECE, MAGIC.len()) {
        for hit in memchr::memmem::find_iter(&bytes, MAGIC) {
            let addr = base.plus(hit as u64);
            if addr.0.is_multiple_of(ALIGN)
                && let Some(info) = parse(image, addr)
            {
                return Some(info);
            }
        }
    }
    None
}

/// Reads the blob at a known address, for example of a `.go.buildinfo` section.
pub fn at(image: &Image, addr: LinkAddr) -> Option<BuildInfo> {
    parse(image, addr)
}

fn parse(image: &Image, at: LinkAddr) -> Option<BuildInfo> {
    let header = image.read_vec(at, HEADER).ok().filter(|h| h.starts_with(MAGIC))?;
    let flags = *header.get(15)?;
    let (version, modinfo) = if flags & FLAG_INLINE != 0 {
        let (version, next) = inline_string(image, at.plus(HEADER as u64), MAX_VERSION)?;
        let version = match checked(version) {
            Ok(version) => version,
            Err(other) if is_framed(image, next) => String::from_utf8_lossy(&other).into_owned(),
            Err(_) => return None,
        };
        let modinfo = inline_string(image, next, MAX_MODINFO).map(|(bytes, _)| bytes);
        (version, modinfo.unwrap_or_default())
    } else {
        // Format up to Go 1.17: read only to report that the program is too old.
        if flags & FLAG_BIG_ENDIAN != 0 {
            return None;
        }
        let size = image.pointer_size();
        let pointers = image.read_relocated(at.plus(16), 2 * size).ok()?;
        let pointer = |i: usize| Some(LinkAddr(pointer(&pointers, i * size, size)?));
        (
            checked(pointed_string(image, pointer(0)?, MAX_VERSION)?).ok()?,
            pointed_string(image, pointer(1)?, MAX_MODINFO).unwrap_or_default(),
        )
    };
    let mut info =
        BuildInfo { version, path: String::new(), main: None, deps: Vec::new(), settings: Vec::new() };
    // Frame of 16 bytes on each side of the list, for finding it in a binary.
    if modinfo.len() >= 33
        && modinfo.get(modinfo.len() - 17) == Some(&b'\n')
        && let Some(text) = modinfo.get(16..modinfo.len() - 16)
    {
        parse_modinfo(&String::from_utf8_lossy(text), &mut info);
    }
    Some(info)
}

/// Reads a little-endian word of pointer size, 4 or 8 bytes.
fn pointer(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}

/// Returns the version if it is a valid Go version. Checked before more is read: a file can contain the magic
/// many times.
fn checked(version: Vec<u8>) -> Result<String, Vec<u8>> {
    let version = String::from_utf8(version).map_err(|error| error.into_bytes())?;
    if crate::version::GoVersion::parse(&version).is_some() { Ok(version) } else { Err(version.into_bytes()) }
}

/// Returns true if the string at `at` begins and ends like a list of modules. Reads only its beginning and
/// end.
fn is_framed(image: &Image, at: LinkAddr) -> bool {
    let frame = || {
        let (len, start) = inline_length(image, at).filter(|(len, _)| *len <= MAX_MODINFO)?;
        let end = start.plus(len.checked_sub(MODULES_END.len() as u64)?);
        let ends = [(start, MODULES_BEGIN), (end, MODULES_END)];
        Some(ends.iter().all(|(at, mark)| image.read_vec(*at, mark.len()).is_ok_and(|bytes| bytes == *mark)))
    };
    frame() == Some(true)
}

/// Reads the length before a string. Returns the length and the address of the string.
fn inline_length(image: &Image, at: LinkAddr) -> Option<(u64, LinkAddr)> {
    let prefix = image.read_vec(at, 10).ok()?;
    let (mut len, mut used) = (0u64, 0);
    for (i, &b) in prefix.iter().enumerate() {
        len |= u64::from(b & 0x7f).checked_shl(7 * i as u32)?;
        if b & 0x80 == 0 {
            used = i + 1;
            break;
        }
    }
    (used > 0).then(|| (len, at.plus(used as u64)))
}

fn inline_string(image: &Image, at: LinkAddr, max: u64) -> Option<(Vec<u8>, LinkAddr)> {
    let (len, start) = inline_length(image, at).filter(|(len, _)| *len <= max)?;
    if len == 0 {
        return Some((Vec::new(), start));
    }
    let bytes = image.read_vec(start, usize::try_from(len).ok()?).ok()?;
    (bytes.len() as u64 == len).then(|| (bytes, start.plus(len)))
}

fn pointed_string(image: &Image, header: LinkAddr, max: u64) -> Option<Vec<u8>> {
    let size = image.pointer_size();
    let header = image.read_relocated(header, 2 * size).ok()?;
    let (data, len) = (pointer(&header, 0, size)?, pointer(&header, size, size)?);
    if len > max {
        return None;
    }
    let bytes = image.read_vec(LinkAddr(data), usize::try_from(len).ok()?).ok()?;
    (bytes.len() as u64 == len).then_some(bytes)
}

/// Parses the tab-separated lines of `runtime/debug.BuildInfo.String`; unknown lines are skipped.
fn parse_modinfo(text: &str, info: &mut BuildInfo) {
    let mut last_is_main = false;
    for line in text.lines() {
        let mut fields = line.split('\t');
        let kind = fields.next().unwrap_or("");
        let mut module = || {
            let mut field = || fields.next().unwrap_or("").to_owned();
            Module { path: field(), version: field(), sum: field(), replaced_by: None }
        };
        match kind {
            "path" => info.path = line.get(5..).unwrap_or("").to_owned(),
            "mod" => {
                info.main = Some(module());
                last_is_main = true;
            }
            "dep" if info.deps.len() < MAX_MODULES => {
                info.deps.push(module());
                last_is_main = false;
            }
            "=>" => {
                let replacement = Some(Box::new(module()));
                if last_is_main {
                    if let Some(m) = &mut info.main {
                        m.replaced_by = replacement;
                    }
                } else if let Some(m) = info.deps.last_mut() {
                    m.replaced_by = replacement;
                }
            }
            "build" if info.settings.len() < MAX_SETTINGS => {
                if let Some((key, value)) = line.get(6..).and_then(setting) {
                    info.settings.push((key, value));
                }
            }
            _ => {}
        }
    }
}

/// Parses `key=value`. Key or value is quoted like a Go string if it contains characters that would break the
/// line.
fn setting(text: &str) -> Option<(String, String)> {
    let (key, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let end = closing_quote(quoted)?;
            (unquote(quoted.get(..end)?), quoted.get(end + 1..)?.strip_prefix('=')?)
        }
        None => {
            let (key, rest) = text.split_once('=')?;
            (key.to_owned(), rest)
        }
    };
    let value = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted.get(..closing_quote(quoted)?)?),
        None => rest.to_owned(),
    };
    Some((key, value))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| match b {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        b => b == b'"',
    })
}

fn unquote(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modinfo_lines() {
        let mut info = BuildInfo {
            version: "go1.26.0".into(),
            path: String::new(),
            main: None,
            deps: Vec::new(),
            settings: Vec::new(),
        };
        parse_modinfo(
            "path\texample.com/cmd\nmod\texample.com\tv1.0.0\t\ndep\ta.b/c\tv0.1.0\th1:x=\n=>\t../c\t\t\n\
             build\t-ldflags=\"-s -w \\\"x\\\"\"\nbuild\tCGO_ENABLED=0\nodd\tline\n",
            &mut info,
        );
        assert_eq!(info.path, "example.com/cmd");
        assert_eq!(info.main.as_ref().map(|m| m.version.as_str()), Some("v1.0.0"));
        assert_eq!(info.deps[0].replaced_by.as_ref().map(|m| m.path.as_str()), Some("../c"));
        assert_eq!(info.setting("-ldflags"), Some("-s -w \"x\""));
        assert_eq!(info.setting("CGO_ENABLED"), Some("0"));
    }
}
