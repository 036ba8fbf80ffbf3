//! A query over one table under construction.

use std::borrow::Cow;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::{self, Aggregate, Grouped};
use crate::bindings::convoke::runtime::database_read;
use crate::database::parse;
use crate::document::Doc;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::float::Float;
use crate::page::{Page, PaginationOptions};
use crate::plan::{self, Condition, FieldName, Operator, Order, Plan};
use crate::table::{Projection, Table};

/// A query under construction. `collect`, `take`, `first`, `unique` and `paginate` run it for documents; `count`, `sum`,
/// `avg`, `min`, `max` and `aggregate` for values.
///
/// Fields are named as they are stored. With an index, conditions are equalities on its first fields, and then a range
/// on the next one. Behind an index's own fields comes `_creationTime`, which is a number, and without an index it is
/// all there is. Whatever an index does not decide is a [`filter`](Self::filter).
///
/// `F` is what documents are read as: the whole of them, or a [projection](Self::select).
#[derive(Debug)]
#[must_use = "a query runs at `collect`, `take`, `first`, `unique`, `paginate`, `count` and so on"]
pub struct Query<T, F = T> {
    plan: Plan,
    table: PhantomData<fn() -> (T, F)>,
}

// Not derived: that would ask for tables that can be cloned.
impl<T, F> Clone for Query<T, F> {
    fn clone(&self) -> Self {
        Self { plan: self.plan.clone(), table: PhantomData }
    }
}

impl<T: Table> Query<T> {
    pub(crate) fn new() -> Self {
        Self { plan: Plan::of(T::NAME), table: PhantomData }
    }

    /// Some fields of the documents in the place of whole ones: those of a struct by
    /// [`#[projection]`](macro@crate::projection). The rest is not sent, and a live query is not run again by an update that
    /// changes neither these nor a field of the query's index or filter.
    pub fn select<P: Projection<Of = T>>(mut self) -> Query<T, P> {
        self.plan.fields = Some(P::FIELDS);
        Query { plan: self.plan, table: PhantomData }
    }
}

/// Which documents.
impl<T: Table, F> Query<T, F> {
    /// Goes along this index: it decides the order, and the conditions are on its fields.
    pub fn index(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.plan.index = Some(name.into());
        self
    }

    /// Only documents whose field equals the value. `None` means that the field is missing, because that is how a
    /// `None` is stored.
    pub fn eq(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.compare(field.into(), Operator::Eq, &value)
    }

    /// Only documents whose field is there and null.
    pub fn eq_null(self, field: impl Into<FieldName>) -> Self {
        self.condition(Condition::null(field.into(), Operator::Eq))
    }

    /// Only documents whose field equals one of the values; a `None` among them means that it is missing.
    pub fn is_in<V: Serialize>(self, field: impl Into<FieldName>, values: impl IntoIterator<Item = V>) -> Self {
        self.condition(Condition::is_in(field.into(), values))
    }

    /// Only documents whose field is below the value.
    pub fn lt(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.compare(field.into(), Operator::Lt, &value)
    }

    /// Only documents whose field is the value or below.
    pub fn lte(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.compare(field.into(), Operator::Lte, &value)
    }

    /// Only documents whose field is above the value.
    pub fn gt(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.compare(field.into(), Operator::Gt, &value)
    }

    /// Only documents whose field is the value or above.
    pub fn gte(self, field: impl Into<FieldName>, value: impl Serialize) -> Self {
        self.compare(field.into(), Operator::Gte, &value)
    }

    /// Only documents for which this holds, on whatever fields. The documents that the index gives are looked at one by
    /// one. A second filter adds to the first.
    pub fn filter(mut self, filter: Filter) -> Self {
        let filter = match self.plan.filter.take() {
            Some(first) => Filter::from_plan(first).and(filter),
            None => filter,
        };
        self.plan.filter = Some(filter.into_plan());
        self
    }

    /// In the order of the index, or of creation without one. This is the default.
    pub fn asc(mut self) -> Self {
        self.plan.order = Some(Order::Asc);
        self
    }

    /// Against the order of the index, or of creation without one.
    pub fn desc(mut self) -> Self {
        self.plan.order = Some(Order::Desc);
        self
    }

    /// Without the first documents, this many. They are read all the same: for page after page, [`paginate`](Self::paginate).
    pub fn offset(mut self, count: u32) -> Self {
        self.plan.offset = Some(count);
        self
    }

    /// At most this many, the first ones: documents for `collect`, [`patch_where`](crate::Writer::patch_where) and
    /// [`delete_where`](crate::Writer::delete_where), groups for [`group_by`](Self::group_by).
    pub fn limit(mut self, count: u32) -> Self {
        self.plan.limit = Some(count);
        self
    }

    fn compare(self, field: FieldName, operator: Operator, value: &impl Serialize) -> Self {
        self.condition(Condition::compare(field, operator, value))
    }

    fn condition(mut self, condition: Condition) -> Self {
        self.plan.conditions.push(condition);
        self
    }

    /// The plan as it crosses to the host.
    pub(crate) fn into_json(self) -> Result<String> {
        Ok(serde_json::to_string(&self.plan)?)
    }
}

/// What of them: documents.
impl<T: Table, F: DeserializeOwned> Query<T, F> {
    /// All the documents.
    pub fn collect(self) -> Result<Vec<Doc<T, F>>> {
        parse(T::NAME, &database_read::query(&self.into_json()?)?)
    }

    /// At most this many documents, the first ones.
    pub fn take(self, count: u32) -> Result<Vec<Doc<T, F>>> {
        self.limit(count).collect()
    }

    /// The first document, if there is any.
    pub fn first(self) -> Result<Option<Doc<T, F>>> {
        Ok(self.take(1)?.pop())
    }

    /// The only document, if there is any. Two are an error with the code `NOT_UNIQUE`.
    pub fn unique(self) -> Result<Option<Doc<T, F>>> {
        only(self.take(2)?)
    }

    /// One page, and the cursor at which the next one begins. A page that is asked for again begins and ends where it
    /// did before, whatever was written meanwhile.
    pub fn paginate(self, options: PaginationOptions) -> Result<Page<Doc<T, F>>> {
        parse(T::NAME, &database_read::query(&self.paged(options).into_json()?)?)
    }

    fn paged(mut self, options: PaginationOptions) -> Self {
        self.plan.limit = Some(options.num_items);
        self.plan.page = Some(plan::Page { cursor: options.cursor, end: options.end_cursor });
        self
    }
}

/// What of them: values. They come in the place of documents, whole or not.
impl<T: Table> Query<T> {
    /// How many documents there are.
    pub fn count(self) -> Result<u64> {
        let (count,) = self.aggregate([Aggregate::count()])?;
        Ok(count)
    }

    /// The sum of a field, 0 over nothing. A document where it is no number is left out. For a sum of integers beyond
    /// 2^53, [`aggregate`](Self::aggregate) it into an `i64`.
    pub fn sum(self, field: impl Into<FieldName>) -> Result<f64> {
        let (Float(sum),) = self.aggregate([Aggregate::sum(field)])?;
        Ok(sum)
    }

    /// The mean of a field, none over nothing. A document where it is no number is left out.
    pub fn avg(self, field: impl Into<FieldName>) -> Result<Option<f64>> {
        let (mean,): (Option<Float>,) = self.aggregate([Aggregate::avg(field)])?;
        Ok(mean.map(f64::from))
    }

    /// The lowest value of a field, none over nothing. A document without the field is left out.
    pub fn min<V: DeserializeOwned>(self, field: impl Into<FieldName>) -> Result<Option<V>> {
        let (value,) = self.aggregate([Aggregate::min(field)])?;
        Ok(value)
    }

    /// The highest value of a field, none over nothing. A document without the field is left out.
    pub fn max<V: DeserializeOwned>(self, field: impl Into<FieldName>) -> Result<Option<V>> {
        let (value,) = self.aggregate([Aggregate::max(field)])?;
        Ok(value)
    }

    /// Several values at once, in one reading: a tuple of as many as are asked for.
    pub fn aggregate<V: DeserializeOwned>(self, aggregates: impl IntoIterator<Item = Aggregate>) -> Result<V> {
        aggregate::values::<T, V>(self.plan, aggregates)
    }

    /// Values for each group of documents whose fields are equal. They are the first fields of the index that no
    /// equality fixes: `index("by_genre_year").group_by(["genre"])`.
    pub fn group_by<F: Into<FieldName>>(mut self, fields: impl IntoIterator<Item = F>) -> Grouped<T> {
        self.plan.group_by = fields.into_iter().map(Into::into).collect();
        Grouped::of(self.plan)
    }
}

fn only<T: Table, F>(mut documents: Vec<Doc<T, F>>) -> Result<Option<Doc<T, F>>> {
    if documents.len() > 1 {
        let message = format!("more than one document of `{}` fits the query", T::NAME);
        return Err(Error::new("NOT_UNIQUE", message));
    }
    Ok(documents.pop())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::field;
    use crate::id::Id;
    use crate::table::tests::{Heading, Note};

    fn query() -> Query<Note> {
        Query::new()
    }

    fn json(query: Query<Note>) -> String {
        query.into_json().unwrap()
    }

    #[test]
    fn a_plan_says_only_what_was_asked() {
        assert_eq!(json(query()), r#"{"table":"notes"}"#);
    }

    #[test]
    fn a_plan_keeps_the_order_of_its_conditions() {
        let title = String::from("a\"b");
        let plan = query().index("by_title").eq("title", &title).gte("rank", 1).lt("rank", 2.5).desc();
        assert_eq!(
            json(plan),
            r#"{"table":"notes","index":"by_title","where":[{"field":"title","op":"eq","value":"a\"b"},{"field":"rank","op":"gte","value":1},{"field":"rank","op":"lt","value":2.5}],"order":"desc"}"#
        );
    }

    #[test]
    fn every_operator_has_its_name() {
        let plan = query().is_in("rank", [1, 2]).lte("rank", 3).gt("rank", None::<i64>).asc();
        assert_eq!(
            json(plan),
            r#"{"table":"notes","where":[{"field":"rank","op":"in","value":[1,2]},{"field":"rank","op":"lte","value":3},{"field":"rank","op":"gt","value":null}],"order":"asc"}"#
        );
    }

    #[test]
    fn no_value_is_a_missing_field_and_a_null_is_asked_for_by_name() {
        let plan = query().eq("rank", None::<i64>).is_in("title", [Some("a"), None]).eq_null("rank");
        assert_eq!(
            json(plan),
            r#"{"table":"notes","where":[{"field":"rank","op":"eq","value":{"$undefined":null}},{"field":"title","op":"in","value":["a",{"$undefined":null}]},{"field":"rank","op":"eq","value":null}]}"#
        );
    }

    #[test]
    fn ids_and_creation_times_are_values() {
        let id: Id<Note> = Id::from("j1");
        let plan = query().index("by_title").eq("title", &id).gt("_creationTime", 1_700_000_000_000.5);
        assert_eq!(
            json(plan),
            r#"{"table":"notes","index":"by_title","where":[{"field":"title","op":"eq","value":"j1"},{"field":"_creationTime","op":"gt","value":1700000000000.5}]}"#
        );
    }

    #[test]
    fn filters_add_up() {
        let plan = query().filter(field("rank").gte(1)).filter(field("title").exists()).limit(5).offset(3);
        assert_eq!(
            json(plan),
            r#"{"table":"notes","filter":{"and":[{"field":"rank","op":"gte","value":1},{"field":"title","op":"ne","value":{"$undefined":null}}]},"limit":5,"offset":3}"#
        );
    }

    #[test]
    fn a_selection_names_its_fields() {
        let plan = query().index("by_title").select::<Heading>().eq("title", "a").limit(5);
        assert_eq!(
            plan.into_json().unwrap(),
            r#"{"table":"notes","index":"by_title","where":[{"field":"title","op":"eq","value":"a"}],"limit":5,"fields":["title"]}"#
        );
        let text = r#"[{"_id":"a","_creationTime":1,"title":"x"}]"#;
        let read: Vec<Doc<Note, Heading>> = parse("notes", text).unwrap();
        assert_eq!(read, [Doc::in_part(Id::from("a"), 1.0, Heading { title: "x".to_owned() })]);
    }

    #[test]
    fn a_page_says_where_it_begins() {
        assert_eq!(
            json(query().paged(PaginationOptions::new(20))),
            r#"{"table":"notes","limit":20,"page":{"cursor":null}}"#
        );
        let mut options = PaginationOptions::new(5).after("c");
        options.end_cursor = Some("e".to_owned());
        assert_eq!(json(query().paged(options)), r#"{"table":"notes","limit":5,"page":{"cursor":"c","end":"e"}}"#);
    }

    #[test]
    fn a_page_of_documents_is_read() {
        let text = r#"{"page":[{"_id":"a","_creationTime":1,"title":"x"}],"isDone":true,"continueCursor":"c","splitCursor":null}"#;
        let page: Page<Doc<Note>> = parse("notes", text).unwrap();
        let titles = page.map(|note| note.into_fields().title);
        assert_eq!((titles.page, titles.is_done), (vec!["x".to_owned()], true));
    }

    #[test]
    fn a_value_that_json_cannot_hold_fails_when_the_query_runs() {
        let unfit = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert_eq!(query().eq("title", &unfit).into_json().unwrap_err().code(), "INVALID_JSON");
        assert_eq!(query().is_in("title", [&unfit]).into_json().unwrap_err().code(), "INVALID_JSON");
        assert_eq!(query().filter(field("title").ne(&unfit)).into_json().unwrap_err().code(), "INVALID_JSON");
    }

    #[test]
    fn two_documents_are_not_unique() {
        let note = |id: &str| Doc::new(Id::from(id), 0.0, Note { title: String::new(), rank: None });
        assert_eq!(only::<Note, Note>(vec![]).unwrap(), None);
        assert_eq!(only(vec![note("a")]).unwrap(), Some(note("a")));
        assert_eq!(only(vec![note("a"), note("b")]).unwrap_err().code(), "NOT_UNIQUE");
    }
}
