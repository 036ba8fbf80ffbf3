//! How many cases a test takes.

use std::env;

use proptest::prelude::ProptestConfig;

/// Half a minute on two cores. A million is for a release build, with this variable.
const CASES: u32 = 100_000;
const CASES_ENV: &str = "CONVOKE_ORACLE_CASES";

/// A message of a client is small; one of the server in seven is a transition, of some fifty modifications.
const CLIENT_MESSAGES_FOR_ONE_OF_THE_SERVER: u32 = 20;

pub(crate) fn of_clients() -> ProptestConfig {
    let given = env::var(CASES_ENV).ok().and_then(|count| count.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(given.unwrap_or(CASES)) }
}

pub(crate) fn of_the_server() -> ProptestConfig {
    let clients = of_clients();
    ProptestConfig { cases: clients.cases / CLIENT_MESSAGES_FOR_ONE_OF_THE_SERVER, ..clients }
}
