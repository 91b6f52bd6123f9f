//! Cache of knowledge about programs, for their next processes. Two files that are byte for byte equal yield
//! the same knowledge. The memory of each process is verified against it, as for a new program.
//!
//! The cache exists only in memory. A trusted cache file would let its writer cause wrong answers about
//! programs of other users. Analysing a program again takes only a few milliseconds.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use symbols::addr::LinkAddr;
use symbols::image::{Image, ImageError, Segment};
use symbols::pclntab::{Excerpt, Pclntab};
use symbols::program::{self, GoProgram};

use super::calibrate::Fit;
use crate::process::executable::{Contents, Executable};

/// Maximum number of cached programs, each of a megabyte or less.
const MAX_PROGRAMS: usize = 32;

/// Knowledge from the file of a Go program.
#[derive(Debug)]
pub struct KnownProgram {
    /// Recognised Go program.
    pub program: GoProgram,
    segments: Vec<Segment>,
    entry: LinkAddr,
    learned: Mutex<Option<Learned>>,
}

/// Findings in the file of a program from an earlier attachment.
#[derive(Debug, Clone)]
pub(super) struct Learned {
    pub(super) fit: Arc<Fit>,
    pub(super) excerpt: Arc<Excerpt>,
}

impl KnownProgram {
    /// Creates the knowledge about a program without storing it in the cache.
    pub fn new(image: &Image, program: GoProgram) -> Self {
        let segments = image.segments().to_vec();
        KnownProgram { program, segments, entry: image.entry(), learned: Mutex::default() }
    }

    fn is_of(&self, image: &Image) -> bool {
        self.segments == image.segments() && self.entry == image.entry()
    }

    pub(super) fn learned(&self) -> Option<Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores the fit of a process if the file alone determined it.
    pub(super) fn learn(&self, fit: &Arc<Fit>, pclntab: &Pclntab) {
        if fit.is_of_file() {
            let learned = Learned { fit: Arc::clone(fit), excerpt: Arc::new(pclntab.excerpt()) };
            *self.learned.lock().unwrap_or_else(PoisonError::into_inner) = Some(learned);
        }
    }
}

#[derive(Debug, Default)]
struct Programs {
    kept: HashMap<Contents, (Arc<KnownProgram>, u64)>,
    /// Counter of uses. The least recently used program is removed first.
    uses: u64,
}

static PROGRAMS: LazyLock<Mutex<Programs>> = LazyLock::new(Mutex::default);

impl Programs {
    fn get(&mut self, contents: &Contents) -> Option<Arc<KnownProgram>> {
        self.uses += 1;
        let (known, used) = self.kept.get_mut(contents)?;
        *used = self.uses;
        Some(Arc::clone(known))
    }

    fn keep(&mut self, contents: Contents, known: &Arc<KnownProgram>) {
        if self.kept.len() >= MAX_PROGRAMS
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, (_, used))| *used).map(|(of, _)| *of)
        {
            self.kept.remove(&oldest);
        }
        self.kept.insert(contents, (Arc::clone(known), self.uses));
    }
}

/// Clears the cache of programs. Each program is analysed again for its next process.
pub fn forget() {
    *PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner) = Programs::default();
}

/// Recognises the Go image of a file. Returns `None` if the file is no Go image.
///
/// # Errors
/// Returns an [`ImageError`] if the file is no readable image.
pub(super) fn recognise(file: Executable) -> Result<(Image, Option<Arc<KnownProgram>>), ImageError> {
    let contents = file.contents();
    let image = Image::parse(Box::new(file))?;
    let kept = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).get(&contents);
    if let Some(known) = kept.filter(|known| known.is_of(&image)) {
        return Ok((image, Some(known)));
    }
    let Some(program) = program::recognise(&image) else { return Ok((image, None)) };
    let known = Arc::new(KnownProgram::new(&image, program));
    // A module that is unreadable now may be readable the next time, so only complete results are cached.
    if known.program.module.is_some() {
        PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).keep(contents, &known);
    }
    Ok((image, Some(known)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use symbols::program::Release;

    use super::*;
    use crate::process::regular::{Links, RegularFile};

    fn open(path: &Path) -> Executable {
        Executable::new(RegularFile::open(path, Links::Follow).unwrap()).unwrap()
    }

    #[test]
    fn the_program_that_was_not_used_for_the_longest_time_is_forgotten_first() {
        let mut programs = Programs::default();
        let files: Vec<_> = (0..=MAX_PROGRAMS).map(|_| tempfile::NamedTempFile::new().unwrap()).collect();
        let contents: Vec<Contents> = files.iter().map(|file| open(file.path()).contents()).collect();
        let (release, evidence) = (Release::Between(27, None), Vec::new());
        let program = GoProgram { release, build_info: None, evidence, contradicted: None, module: None };
        let image = Image::parse(Box::new(open(Path::new("/proc/self/exe")))).unwrap();
        let known = Arc::new(KnownProgram::new(&image, program));
        assert!(known.is_of(&image) && known.learned().is_none());
        let (last, first) = contents.split_last().unwrap();
        for contents in first {
            assert!(programs.get(contents).is_none());
            programs.keep(*contents, &known);
        }
        assert!(programs.get(&first[0]).is_some());
        programs.keep(*last, &known);
        let kept: Vec<bool> = contents.iter().map(|contents| programs.get(contents).is_some()).collect();
        assert_eq!(kept.iter().filter(|kept| !**kept).count(), 1);
        assert!(!kept[1]);
    }
}
