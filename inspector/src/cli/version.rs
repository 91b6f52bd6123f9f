//! `version`.

use super::args::{Common, VersionArgs};
use super::via::{Chosen, choose};
use super::{agent, list, output};
use crate::Error;
use crate::agent::{Request, Signal};
use crate::process::find;
use crate::report::version::{Version, write_text};

pub(super) fn run(args: &VersionArgs, common: &Common) -> Result<(), Error> {
    let target = args.target.find(common)?;
    let connection = match choose(&target, &args.way, common, |process| Ok(find::one(process)?))? {
        Chosen::Probe(found) => {
            if common.json {
                output::write_json(common, &Version::new(&found))?;
            } else {
                output::write(common, |out| write_text(&found, common.verbose > 0, out))?;
            }
            return list::conclude([&found]);
        }
        Chosen::Agent(connection) => connection,
    };
    let request = Request::Plain(Signal::Version);
    if !common.json {
        return agent::pass_on(connection, &request, &args.way, common);
    }
    let peer = connection.peer().to_owned();
    let line = agent::ask_for_text(connection, &request, &args.way)?;
    let version = Version::from_agent(&target.named(), &line)
        .ok_or_else(|| agent::garbage(peer, "a Go version", &line))?;
    output::write_json(common, &version)
}
