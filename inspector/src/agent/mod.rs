//! Access to gops agents. Programs that import `github.com/google/gops/agent` listen on a TCP port
//! and write its number to a file named after their pid.
//!
//! ```text
//! port_file   contents and places of port files
//! sockets     owners of the sockets that listen on a port
//! find        the agent of a process, found by its port file and its sockets
//! connect     connections, in the network namespace of the agent
//! signal      commands of the protocol
//! client      requests, with limits on the answer
//! server      server side, which answers gops for a process that has no agent
//! peer        identity and rights of the clients of a server
//! places      connection slots of a server
//! socket      listening sockets of a server
//! payload     checks of profiles, traces and programs by their first bytes
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
