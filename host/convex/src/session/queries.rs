//! What one client shows.

use std::collections::{BTreeMap, BTreeSet};

use crate::QueryId;
use crate::error::{Misuse, ProtocolError};
use crate::limits::{QUERIES_BYTES_MAX, QUERIES_MAX};
use crate::query_result::{Digest, QueryResult};

/// The queries of one client, and which of their results it has.
#[derive(Debug, Default)]
pub(super) struct Queries {
    active: BTreeMap<QueryId, Active>,
    /// Removed by the client, which waits for confirmation.
    removed: BTreeSet<QueryId>,
    /// Of all that are active.
    bytes: usize,
}

#[derive(Debug)]
struct Active {
    /// The version of the query set with which it came.
    since: u32,
    bytes: usize,
    /// What the client was told last.
    told: Option<Digest>,
}

impl Queries {
    /// Takes a query whose text has so many bytes.
    pub(super) fn add(&mut self, id: QueryId, version: u32, bytes: usize) -> Result<(), ProtocolError> {
        if self.active.contains_key(&id) {
            return Err(ProtocolError::QueryIsThere(id));
        }
        // What has gone is still to be confirmed: as many again.
        if self.active.len() >= QUERIES_MAX || self.active.len() + self.removed.len() >= 2 * QUERIES_MAX {
            return Err(ProtocolError::TooManyQueries { limit: QUERIES_MAX });
        }
        if self.bytes + bytes > QUERIES_BYTES_MAX {
            return Err(ProtocolError::QueriesTooLarge { limit: QUERIES_BYTES_MAX });
        }
        self.bytes += bytes;
        self.active.insert(id, Active { since: version, bytes, told: None });
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn remove(&mut self, id: QueryId) -> Result<(), ProtocolError> {
        let removed = self.active.remove(&id).ok_or(ProtocolError::NoSuchQuery(id))?;
        self.bytes -= removed.bytes;
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

    pub(super) fn news_bytes<'a>(&self, results: impl IntoIterator<Item = (QueryId, &'a QueryResult)>) -> usize {
        let is_news = |(id, result): &(QueryId, &QueryResult)| {
            self.active.get(id).is_some_and(|query| query.told != Some(result.digest()))
        };
        results.into_iter().filter(is_news).map(|(_, result)| result.members().len()).sum()
    }

    pub(super) fn told(&mut self, news: &[(QueryId, &QueryResult)]) {
        for (id, result) in news {
            if let Some(query) = self.active.get_mut(id) {
                query.told = Some(result.digest());
            }
        }
    }
}
