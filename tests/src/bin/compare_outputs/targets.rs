//! The processes that are looked at. Most of them stand still, so that two looks see the same.

use std::error::Error;
use std::path::Path;
use std::process::{Command, Stdio};

use fixtures::loaded::{Artifact, artifact, c_host};
use fixtures::matrix::QUICK;
use fixtures::{Cell, Fixture, Process, Program, Variant, build};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const OLDEST: &str = QUICK[0];
const BETWEEN: &str = QUICK[1];
const NEWEST: &str = QUICK[2];

/// All goroutines are parked, and no clock wakes them.
const QUIET: [&str; 4] = ["-n", "20", "-heartbeat", "0"];
const MANY: [&str; 4] = ["-n", "10000", "-heartbeat", "0"];

/// The processes.
#[derive(Debug)]
pub(crate) struct Targets {
    quiet: Fixture,
    oldest: Fixture,
    many: Fixture,
    profiles: Fixture,
    busy: Fixture,
    held: Fixture,
    several: Fixture,
    agent: Fixture,
    foreign: Process,
}

/// Their numbers.
#[derive(Debug)]
pub(crate) struct Pids {
    /// Few goroutines, Go's newest release.
    pub(crate) quiet: String,
    /// The same by the oldest release.
    pub(crate) oldest: String,
    /// 10,000 goroutines.
    pub(crate) many: String,
    /// A heap profile, and profiles of blocking and of locks.
    pub(crate) profiles: String,
    /// Computes.
    pub(crate) busy: String,
    /// Computes, but is stopped by a signal: its goroutines are running, and stay where they are.
    pub(crate) held: String,
    /// Has two Go runtimes.
    pub(crate) several: String,
    /// Has an agent of gops.
    pub(crate) agent: String,
    /// No Go process.
    pub(crate) foreign: String,
    /// A number that no process has.
    pub(crate) gone: String,
}

/// Builds the programs and starts them.
pub(crate) fn start(folder: &Path) -> Result<Targets, Box<dyn Error>> {
    let cell = |toolchain, program| Cell::new(toolchain, Variant::Stripped, program);
    let quiet = cell(NEWEST, Program::Parked);
    let oldest = cell(OLDEST, Program::Parked);
    let profiles = cell(NEWEST, Program::Profiles);
    let hot = cell(NEWEST, Program::Hot);
    let agent = cell(NEWEST, Program::Agent);
    build::build(&[quiet, oldest, profiles, hot, agent], 2, &|_, _| ())?;
    let libraries =
        [artifact(NEWEST, Artifact::Library("shop"))?, artifact(BETWEEN, Artifact::Library("bank"))?];

    let mut host = Command::new(c_host()?);
    host.args(&libraries);
    Process::without_runtime_settings(&mut host);
    let mut several = Fixture::start(host)?;
    for number in 0..libraries.len() {
        several.order(&format!("{number} start 9"))?;
        several.order(&format!("{number} settle"))?;
    }

    let mut sampled = Fixture::spawn(&profiles, &[], &[])?;
    sampled.order("rates 1 1")?;
    sampled.order("allocate 10")?;
    sampled.order("contend")?;
    // What is allocated is in the profile after two collections.
    sampled.order("gc")?;

    let mut held = Fixture::spawn(&hot, &[], &[])?;
    held.order("begin labelled 2")?;
    kill(Pid::from_raw(held.pid().cast_signed()), Signal::SIGSTOP)?;
    let mut busy = Fixture::spawn(&hot, &[], &[])?;
    busy.order("begin shares 2")?;

    let configuration = folder.to_string_lossy();
    let mut foreign = Command::new("sleep");
    foreign.arg("infinity").stdin(Stdio::null());
    Ok(Targets {
        quiet: Fixture::spawn(&quiet, &QUIET, &[])?,
        oldest: Fixture::spawn(&oldest, &QUIET, &[])?,
        many: Fixture::spawn(&quiet, &MANY, &[])?,
        profiles: sampled,
        busy,
        held,
        several,
        agent: Fixture::spawn(&agent, &QUIET, &[("GOPS_CONFIG_DIR", &configuration)])?,
        foreign: Process::spawn(foreign)?,
    })
}

impl Targets {
    pub(crate) fn pids(&self) -> Pids {
        let pid = |fixture: &Fixture| fixture.pid().to_string();
        Pids {
            quiet: pid(&self.quiet),
            oldest: pid(&self.oldest),
            many: pid(&self.many),
            profiles: pid(&self.profiles),
            busy: pid(&self.busy),
            held: pid(&self.held),
            several: pid(&self.several),
            agent: pid(&self.agent),
            foreign: self.foreign.pid().to_string(),
            // Above what Linux gives to any process.
            gone: "4194305".to_owned(),
        }
    }

    /// Fails where a look left a mark.
    pub(crate) fn assert_untouched(&mut self) -> Result<(), Box<dyn Error>> {
        kill(Pid::from_raw(self.held.pid().cast_signed()), Signal::SIGCONT)?;
        for fixture in [
            &mut self.quiet,
            &mut self.oldest,
            &mut self.many,
            &mut self.profiles,
            &mut self.busy,
            &mut self.held,
            &mut self.agent,
        ] {
            fixture.assert_untouched()?;
        }
        self.several.assert_untraced()?;
        Ok(self.foreign.assert_untraced()?)
    }
}
