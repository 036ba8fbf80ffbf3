//! Poolers of providers, known by their addresses: they hand out connections by transaction, and what belongs to a
//! session is lost.

use tokio_postgres::config::Host;

use crate::Config;

/// A pooler where a server should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    Neon,
    /// By transaction.
    Supabase,
    /// By session: all but replication works.
    SupabaseSessions,
    Azure,
}

impl Pooler {
    /// Whether a client has one connection to Postgres as long as it is connected.
    pub fn keeps_sessions(self) -> bool {
        self == Self::SupabaseSessions
    }

    /// Which address leads to Postgres itself.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Neon => "use the host without `-pooler` in its name",
            Self::Supabase | Self::SupabaseSessions => {
                "use the direct connection `db.….supabase.co:5432`, not the pooler; it needs IPv6 or the IPv4 add-on"
            }
            Self::Azure => "use port 5432: 6432 is the pooler's",
        }
    }

    fn at(name: &str, port: u16) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let is_in = |domain: &str| name.ends_with(domain);
        if is_in(".neon.tech") || is_in(".neon.build") {
            let endpoint = name.split('.').next().unwrap_or_default();
            return endpoint.ends_with("-pooler").then_some(Self::Neon);
        }
        if is_in(".supabase.com") || is_in(".supabase.co") {
            return match port {
                6543 => Some(Self::Supabase),
                _ if is_in(".pooler.supabase.com") => Some(Self::SupabaseSessions),
                _ => None,
            };
        }
        (is_in(".postgres.database.azure.com") && port == 6432).then_some(Self::Azure)
    }
}

impl Config {
    /// The first of the hosts that is a pooler by its address. A pooler of one's own is not known by it.
    pub fn pooler(&self) -> Option<Pooler> {
        let ports = self.get_ports();
        self.get_hosts().iter().enumerate().find_map(|(index, host)| match host {
            Host::Tcp(name) => Pooler::at(name, ports.get(index).or(ports.first()).copied().unwrap_or(5432)),
            Host::Unix(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolers_are_known_by_their_addresses() {
        for (text, pooler) in [
            ("postgres://ep-cool-1-pooler.eu-central-1.aws.neon.tech/app", Some(Pooler::Neon)),
            ("postgres://ep-cool-1.eu-central-1.aws.neon.tech/pooler", None),
            ("postgres://aws-0-eu-west-1.pooler.supabase.com:6543/postgres", Some(Pooler::Supabase)),
            ("postgres://aws-0-eu-west-1.pooler.supabase.com:5432/postgres", Some(Pooler::SupabaseSessions)),
            ("postgres://db.abc.supabase.co:6543/postgres", Some(Pooler::Supabase)),
            ("postgres://db.abc.supabase.co/postgres", None),
            ("postgres://x.postgres.database.azure.com:6432/app", Some(Pooler::Azure)),
            ("host=a,X.postgres.database.azure.com port=1,6432", Some(Pooler::Azure)),
            ("host=/run port=6432", None),
            ("postgres://db.example.org:6432/app", None),
        ] {
            let config: Config = text.parse().expect(text);
            assert_eq!(config.pooler(), pooler, "{text}");
        }
    }
}
