//! Access to gops agents. Programs that import `github.com/google/gops/agent` listen on a TCP port
//! and write its number to a file named after their pid.
//!
//! ```text
//! port_file   what a port file says, and where it can be
//! sockets     who listens on a port
//! find        the two together: the agent of a process, or what claims to be one
//! connect     a connection, in the network namespace of the agent
//! signal      the commands
//! client      a command, and the bounded answer
//! server      the other side: what answers gops for a process that has no agent
//! peer        who asks it, and what they may
//! places      how many may at a time
//! socket      where it listens
//! payload     what a profile, a trace or a program begins with
//! ```

pub mod address;
pub mod client;
mod connect;
mod error;
mod find;
pub mod payload;
pub mod peer;
mod places;
pub mod port_file;
pub mod server;
pub mod signal;
pub mod socket;
pub mod sockets;

pub use address::{Address, AgentTarget};
pub use client::{Answer, End, Limits};
pub use connect::Connection;
pub use error::Error;
pub(crate) use find::OwnPortFiles;
pub use find::{AgentMark, Endpoint, find};
pub use signal::{GcPercent, Request, Signal};
