//! What one client shows.

use std::collections::{BTreeMap, BTreeSet};

use crate::QueryId;
use crate::error::{Misuse, ProtocolError};
use crate::query_result::{Digest, QueryResult};

/// The queries of one client, and which of their results it has.
#[derive(Debug, Default)]
pub(super) struct Queries {
    active: BTreeMap<QueryId, Active>,
    /// Removed by the client, which waits for confirmation.
    removed: BTreeSet<QueryId>,
}

#[derive(Debug)]
struct Active {
    /// The version of the query set with which it came.
    since: u32,
    /// What the client was told last.
    told: Option<Digest>,
}

impl Queries {
    pub(super) fn add(&mut self, id: QueryId, version: u32) -> Result<(), ProtocolError> {
        if self.active.contains_key(&id) {
            return Err(ProtocolError::QueryIsThere(id));
        }
        self.active.insert(id, Active { since: version, told: None });
        Ok(())
    }

    pub(super) fn remove(&mut self, id: QueryId) -> Result<(), ProtocolError> {
        self.active.remove(&id).ok_or(ProtocolError::NoSuchQuery(id))?;
        self.removed.insert(id);
        Ok(())
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = QueryId> {
        self.active.keys().copied()
    }

    pub(super) fn take_removed(&mut self) -> Vec<QueryId> {
        std::mem::take(&mut self.removed).into_iter().collect()
    }

    pub(super) fn put_back(&mut self, removed: Vec<QueryId>) {
        self.removed.extend(removed);
    }

    /// The results that the client does not have, of the queries that came up to a version of the query set.
    pub(super) fn news<'a>(
        &self,
        version: u32,
        results: impl IntoIterator<Item = (QueryId, &'a QueryResult)>,
    ) -> Result<Vec<(QueryId, &'a QueryResult)>, Misuse> {
        let results: BTreeMap<QueryId, &QueryResult> = results.into_iter().collect();
        let covered = || self.active.iter().filter(|(_, query)| query.since <= version);
        let mut unanswered = covered().filter(|(id, query)| query.told.is_none() && !results.contains_key(id));
        if let Some((id, _)) = unanswered.next() {
            return Err(Misuse::Unanswered(*id));
        }
        let news = covered().filter_map(|(id, query)| {
            let result = results.get(id).filter(|result| query.told != Some(result.digest()))?;
            Some((*id, *result))
        });
        Ok(news.collect())
    }

    pub(super) fn told(&mut self, news: &[(QueryId, &QueryResult)]) {
        for (id, result) in news {
            if let Some(query) = self.active.get_mut(id) {
                query.told = Some(result.digest());
            }
        }
    }
}
