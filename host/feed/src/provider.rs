//! Who runs the database, for advice that can be followed there.

use convoke_postgres::Pooler;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

/// Who runs the database, as far as its host's name or its settings tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Nobody that is known: most likely the user.
    Own,
    /// RDS and Aurora.
    Rds,
    CloudSql,
    Azure,
    Supabase,
    Neon,
}

const DOMAINS: [(&str, Provider); 7] = [
    (".rds.amazonaws.com", Provider::Rds),
    (".rds.amazonaws.com.cn", Provider::Rds),
    (".postgres.database.azure.com", Provider::Azure),
    (".supabase.co", Provider::Supabase),
    (".supabase.com", Provider::Supabase),
    (".neon.tech", Provider::Neon),
    (".neon.build", Provider::Neon),
];

/// The first part of settings that only one provider has.
const SETTINGS: [(&str, Provider); 5] = [
    ("rds", Provider::Rds),
    ("cloudsql", Provider::CloudSql),
    ("azure", Provider::Azure),
    ("supautils", Provider::Supabase),
    ("neon", Provider::Neon),
];

impl Provider {
    /// By the hosts' names alone: before, or without, a connection.
    pub(crate) fn of_hosts(config: &Config) -> Self {
        let names = config.get_hosts().iter().filter_map(|host| match host {
            Host::Tcp(name) => Some(name.to_ascii_lowercase()),
            Host::Unix(_) => None,
        });
        let mut found = names.filter_map(|name| DOMAINS.iter().find(|(domain, _)| name.ends_with(domain)));
        found.next().map_or(Self::Own, |(_, provider)| *provider)
    }

    /// By the prefixes of its settings, separated by commas.
    pub(crate) fn of_settings(prefixes: &str) -> Option<Self> {
        let known = |prefix: &str| SETTINGS.iter().find(|(name, _)| *name == prefix).map(|(_, provider)| *provider);
        prefixes.split(',').find_map(known)
    }

    /// How logical decoding is turned on.
    pub fn enable(self) -> &'static str {
        match self {
            Self::Own => "`alter system set wal_level = logical` as a superuser, and restart Postgres",
            Self::Rds => {
                "set `rds.logical_replication = 1` in the parameter group of the instance (Aurora: of the cluster), and \
                 reboot it"
            }
            Self::CloudSql => "set the flag `cloudsql.logical_decoding = on` of the instance, which restarts it",
            Self::Azure => "set the server parameter `wal_level` to `logical`, and restart the server",
            Self::Supabase => "it is on by default: use the direct connection, not the pooler",
            Self::Neon => "turn on \"Logical replication\" in the settings of the project, which restarts its computes",
        }
    }

    /// How a role gets the right to replicate.
    pub(crate) fn grant(self, role: &str) -> String {
        let role = convoke_sql::quote_identifier(role);
        match self {
            Self::Own => format!("`alter role {role} replication`, as a superuser"),
            Self::Rds => format!("`grant rds_replication to {role}`, as the master user"),
            Self::CloudSql | Self::Azure => format!("`alter role {role} replication`, as the administrator"),
            Self::Supabase => {
                format!("`alter role {role} replication` as `postgres`; before Postgres 17 connect as `postgres`")
            }
            Self::Neon => {
                format!("create {role} in the console, the command line or the API of Neon: roles made there have it")
            }
        }
    }

    /// How Postgres itself is reached.
    pub(crate) fn direct(self) -> &'static str {
        match self {
            Self::Own | Self::Rds | Self::CloudSql => {
                "connect to Postgres directly: a pooler hands out connections by transaction, the change feed keeps one"
            }
            Self::Azure => Pooler::Azure.advice(),
            Self::Supabase => Pooler::Supabase.advice(),
            Self::Neon => Pooler::Neon.advice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_recognised() {
        let of_host = |host: &str| Provider::of_hosts(Config::new().host("unknown").host(host));
        assert_eq!(of_host("/run/postgresql"), Provider::Own);
        assert_eq!(of_host("db.example.org"), Provider::Own);
        assert_eq!(of_host("x.cluster-1.eu-west-1.rds.amazonaws.com"), Provider::Rds);
        assert_eq!(of_host("EP-x-pooler.eu-central-1.aws.Neon.Tech"), Provider::Neon);
        assert_eq!(of_host("aws-0.pooler.supabase.com"), Provider::Supabase);
        assert_eq!(Provider::of_settings("plpgsql,cloudsql"), Some(Provider::CloudSql));
        assert_eq!(Provider::of_settings(""), None);
    }

    #[test]
    fn every_provider_has_its_switch() {
        let all = [
            (Provider::Own, "alter system set wal_level"),
            (Provider::Rds, "rds.logical_replication"),
            (Provider::CloudSql, "cloudsql.logical_decoding"),
            (Provider::Azure, "server parameter `wal_level`"),
            (Provider::Supabase, "direct connection"),
            (Provider::Neon, "Logical replication"),
        ];
        for (provider, words) in all {
            assert!(provider.enable().contains(words), "{provider:?}");
        }
    }
}
