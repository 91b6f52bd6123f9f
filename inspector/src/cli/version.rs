//! Command `version`.

use super::args::{Common, VersionArgs};
use super::command::{Patience, Run};
use super::via::{Chosen, choose};
use super::{agent, output};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::operations::version::{conclude, look};
use crate::report::version::{Version, write_text};

impl Run for VersionArgs {
    fn run(&self, common: &Common) -> Result<(), Error> {
        run(self, common)
    }

    fn patience(&self) -> Patience {
        Patience::given(self.way.timeout)
    }

    fn stops(&self) -> bool {
        false
    }
}

fn run(args: &VersionArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let connection = match choose(&target, &args.way, common, look)? {
        Chosen::Probe(found) => {
            if common.json {
                output::write_json(common, &Version::new(&found))?;
            } else {
                output::write(common, |out| write_text(&found, common.verbose > 0, out))?;
            }
            return conclude([&found]);
        }
        Chosen::Agent(connection) => connection,
    };
    let parse = |line: &str| Version::from_agent(&target.named(), line);
    let request = Request::Plain(Signal::Version);
    agent::answer(connection, &request, &args.way, common, "a Go version", parse).map(drop)
}
