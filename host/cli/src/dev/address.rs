//! `.convoke/dev.json`: where the running `dev` serves, for the commands that call it.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use convoke_project::Project;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

#[derive(Serialize, Deserialize)]
struct Recorded {
    url: String,
    pid: u32,
    /// The project's own Postgres; a given one is not noted, since its address may hold a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    postgres: Option<String>,
}

/// The record of a running `dev`, removed at its end.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    url: String,
}

fn path(project: &Project) -> PathBuf {
    project.state_dir().join("dev.json")
}

fn read(project: &Project) -> Option<Recorded> {
    let text = std::fs::read_to_string(path(project)).ok()?;
    serde_json::from_str(&text).ok()
}

/// The Postgres of the running `dev`, where it is the project's own and answers.
pub(crate) async fn postgres(project: &Project) -> Option<convoke_postgres::Config> {
    let config: convoke_postgres::Config = read(project)?.postgres?.parse().ok()?;
    convoke_local_postgres::probe(&config).await.is_ok().then_some(config)
}

/// The address that the last `dev` of the project recorded.
pub(crate) fn recorded(project: &Project) -> Option<String> {
    read(project).map(|recorded| recorded.url)
}

/// How a program on this machine reaches what listens on the address.
pub(super) fn url(address: SocketAddr) -> String {
    let reached = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], address.port())),
        _ => address,
    };
    format!("http://{reached}")
}

impl Record {
    pub(super) fn write(project: &Project, url: &str, postgres: Option<String>) -> Result<Self, Failure> {
        let path = path(project);
        let failed =
            |e: &dyn std::error::Error| Failure::new(format!("`{}` cannot be written", path.display())).cause(e);
        let recorded = Recorded { url: url.to_owned(), pid: std::process::id(), postgres };
        let text = serde_json::to_string(&recorded).map_err(|e| failed(&e))?;
        std::fs::write(&path, text + "\n").map_err(|e| failed(&e))?;
        Ok(Self { path, url: url.to_owned() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // A record that stays leads to a server that does not answer, and `run` says so.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn an_address_for_all_is_reached_here() {
        for (address, reached) in [
            ("127.0.0.1:3210", "http://127.0.0.1:3210"),
            ("0.0.0.0:3210", "http://127.0.0.1:3210"),
            ("[::]:3210", "http://[::1]:3210"),
            ("192.0.2.1:80", "http://192.0.2.1:80"),
        ] {
            assert_eq!(url(address.parse().expect("an address")), reached);
        }
    }
}
