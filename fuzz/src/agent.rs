//! What agents and port files say, what clients of our own endpoint send, and what is typed for a target.

use std::io::Write as _;

use inspector::agent::payload::{Checked, Payload};
use inspector::agent::port_file::{parse_port, variable};
use inspector::agent::server::read_request;
use inspector::agent::signal::read_varint;
use inspector::agent::sockets::listeners;
use inspector::agent::{Address, AgentTarget, GcPercent, Request};
use inspector::process::users::home_in_passwd;
use inspector::report::answers::Source;
use inspector::report::changes::SetGc;
use inspector::report::dump::Dump;
use inspector::report::memstats::MemStatsAnswer;
use inspector::report::stack::Filter;
use inspector::report::stats::StatsAnswer;
use inspector::report::terminal::TerminalSafe;
use inspector::report::version::Version;

use crate::input::Input;

/// The bytes are one of those.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.u8();
    let bytes = input.rest();
    let text = String::from_utf8_lossy(bytes);
    match kind % 9 {
        0 => {
            let _ = parse_port(bytes);
            let _ = home_in_passwd(bytes, 0);
            let _ = variable(bytes, "HOME");
        }
        1 => drop(listeners(bytes).count()),
        2 => {
            let Ok(address) = text.parse::<Address>() else { return };
            // What is printed is read back as the same.
            assert_eq!(address.to_string().parse(), Ok(address));
        }
        3 => {
            let _ = text.parse::<GcPercent>();
            let mut rest = bytes;
            if let Ok(value) = read_varint(&mut rest) {
                let sent = Request::SetGc(GcPercent(value)).encode();
                assert_eq!(read_varint(&mut &sent[1..]).ok(), Some(value));
                assert_eq!(
                    read_request(&mut &sent[..]).ok().flatten(),
                    Some(Request::SetGc(GcPercent(value)))
                );
            }
        }
        4 => drop(read_request(&mut &bytes[..])),
        5 => {
            let target = AgentTarget::Address("localhost:1".parse().expect("an address"));
            let _ = MemStatsAnswer::of_agent(
                Source::new(&AgentTarget::Process("1".parse().expect("a pid")), "agent"),
                &text,
            );
            let _ = StatsAnswer::parse(&text);
            let _ = SetGc::parse(&text);
            let _ = Version::from_agent(&target, &text);
        }
        6 => {
            let Some(dump) = Dump::parse(&text) else { return };
            let target = AgentTarget::Address("localhost:1".parse().expect("an address"));
            let mut out = Vec::new();
            let source = Source::new(&target, "agent");
            dump.write_json(&source, &Filter::default(), &mut out).expect("memory takes it");
            let _ = dump.write_text(&Filter::default(), &mut out);
        }
        7 => {
            let mut safe = TerminalSafe::new(Vec::new());
            for part in bytes.chunks(7) {
                safe.write_all(part).expect("memory takes it");
            }
            safe.flush().expect("memory takes it");
            let shown = safe.into_inner();
            let shown = std::str::from_utf8(&shown).expect("text");
            assert!(!shown.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{shown:?}");
        }
        _ => {
            for payload in [Payload::Profile, Payload::Trace, Payload::Program] {
                let mut checked = Checked::new(payload, std::io::sink());
                let written = bytes.chunks(5).try_for_each(|part| checked.write_all(part));
                assert!(written.is_err() || checked.finish().is_ok() != checked.refused().is_some());
            }
        }
    }
}
