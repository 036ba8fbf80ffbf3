//! How many cases a test takes.

use std::env;

use proptest::prelude::ProptestConfig;

/// Some seconds in a debug build. A million is for a release build, with this variable.
const CASES: u32 = 100_000;
const CASES_ENV: &str = "CONVOKE_ORACLE_CASES";

pub(crate) fn config() -> ProptestConfig {
    let given = env::var(CASES_ENV).ok().and_then(|count| count.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(given.unwrap_or(CASES)) }
}
