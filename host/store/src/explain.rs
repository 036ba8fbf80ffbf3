//! What the plan of a statement tells of what it reads.

use std::collections::BTreeSet;

use convoke_model::{DatabaseError, Read};
use convoke_sql::{Parameter, Statement};
use serde_json::Value;

use crate::rows::Rows;

/// Functions of Postgres' own that are stable and depend on nothing but their arguments and the session's settings, which are
/// the same for all sessions of a host. All immutable ones do too.
const STEADY: &[&str] = &[
    "array_to_json",
    "array_to_string",
    "concat",
    "concat_ws",
    "date_part",
    "date_trunc",
    "extract",
    "format",
    "generate_series",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "json_object_agg",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "jsonb_object_agg",
    "phraseto_tsquery",
    "plainto_tsquery",
    "quote_literal",
    "quote_nullable",
    "row_to_json",
    "timezone",
    "to_char",
    "to_date",
    "to_json",
    "to_jsonb",
    "to_timestamp",
    "to_tsquery",
    "to_tsvector",
    "ts_headline",
    "websearch_to_tsquery",
];
/// What Postgres writes for the time and for who asks, without parentheses or with a precision in them.
const UNSTEADY: &[&str] = &[
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "CURRENT_ROLE",
    "CURRENT_USER",
    "SESSION_USER",
];
/// Words in front of a parenthesis that are no functions: of types with a length.
const TYPES: &[&str] = &["varying"];

/// What a statement reads, and whether the same rows give the same result.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The relations, by name; everything where the plan hides what is read.
    pub(crate) reads: Vec<Read>,
    /// The functions that it calls, without their schemas.
    functions: BTreeSet<String>,
    pub(crate) is_volatile: bool,
}

impl Plan {
    /// Reads the answer to `explain (format json, verbose)`.
    pub(crate) fn parse(text: &str) -> Self {
        let mut plan = Self::default();
        match serde_json::from_str(text) {
            Ok(node) => plan.collect(&node),
            Err(_) => plan.hides_something(),
        }
        plan
    }

    fn hides_something(&mut self) {
        self.reads.push(Read::Everything);
        self.is_volatile = true;
    }

    /// Asks Postgres about the functions that are called, in one row for [`Self::answer`]: whether one of them is not Postgres'
    /// own, or runs SQL, and whether one of them gives a different result for the same arguments.
    pub(crate) fn question(&self) -> Option<Statement> {
        if self.functions.is_empty() {
            return None;
        }
        let text = "select bool_or(not coalesce(is_known, false)), bool_or(not coalesce(is_steady, false)) \
                    from unnest($1::text[]) as f(name) left join lateral (\
                    select bool_and(p.pronamespace = 'pg_catalog'::regnamespace \
                    and p.proname !~ '_to_xml|^ts_stat$|^ts_rewrite$|^nextval$|^lo_|^pg_') as is_known, \
                    bool_and(p.provolatile = 'i' or p.proname = any($2::text[])) as is_steady \
                    from pg_catalog.pg_proc p where p.proname = f.name) as p on true";
        let names = self.functions.iter().cloned().collect();
        let steady = STEADY.iter().map(|name| (*name).to_owned()).collect();
        Some(Statement { text: text.to_owned(), parameters: vec![Parameter::Texts(names), Parameter::Texts(steady)] })
    }

    /// Takes the answer to [`Self::question`].
    pub(crate) fn answer(&mut self, rows: &Rows) -> Result<(), DatabaseError> {
        let Some(row) = rows.first() else { return Ok(()) };
        let (hides, unsteady): (Option<bool>, Option<bool>) = (row.get(0)?, row.get(1)?);
        if hides.unwrap_or(true) {
            self.hides_something();
        }
        self.is_volatile |= unsteady.unwrap_or(true);
        Ok(())
    }

    fn collect(&mut self, node: &Value) {
        match node {
            Value::Array(items) => items.iter().for_each(|item| self.collect(item)),
            Value::Object(fields) => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str);
                if let (Some(schema), Some(name)) = (text("Schema"), text("Relation Name")) {
                    let read = Read::Relation { schema: schema.to_owned(), name: name.to_owned() };
                    if !self.reads.contains(&read) {
                        self.reads.push(read);
                    }
                }
                fields.values().for_each(|value| self.collect(value));
            }
            Value::String(expression) => self.scan(expression),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Finds the words before parentheses in an expression as Postgres writes it, and what of its words is the time.
    fn scan(&mut self, expression: &str) {
        let mut word = Word::None;
        let mut rest = expression.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                // Only in literals; a quote in one is written twice, and so is one literal behind another.
                '\'' => {
                    rest.by_ref().find(|c| *c == '\'');
                    word = Word::None;
                }
                '"' => word = Word::Quoted(rest.by_ref().take_while(|c| *c != '"').collect()),
                '(' => {
                    match std::mem::take(&mut word) {
                        // An operator of somebody's own: what its function does is not known.
                        Word::Plain(name) if name == "OPERATOR" => self.hides_something(),
                        Word::Plain(name) if !is_keyword(&name) && !TYPES.contains(&name.as_str()) => {
                            self.functions.insert(name);
                        }
                        Word::Quoted(name) => {
                            self.functions.insert(name);
                        }
                        Word::Plain(_) | Word::None => {}
                    }
                }
                c if c.is_alphanumeric() || c == '_' || c == '$' => {
                    let mut name = String::from(c);
                    while let Some(c) = rest.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '$')) {
                        name.push(c);
                    }
                    self.is_volatile |= UNSTEADY.contains(&name.as_str());
                    word = Word::Plain(name);
                }
                // `ANY (…)`, `Filter: (…)`.
                _ => word = Word::None,
            }
        }
    }
}

/// The word that was read last, where nothing was behind it yet.
#[derive(Default)]
enum Word {
    #[default]
    None,
    Plain(String),
    Quoted(String),
}

/// Postgres writes its keywords in capitals, and a function's name in capitals between quotes.
fn is_keyword(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn relations_come_from_the_plan() {
        let plan = json!([{ "Plan": { "Node Type": "Hash Join", "Plans": [
            { "Node Type": "Seq Scan", "Schema": "demo", "Relation Name": "a" },
            { "Node Type": "Function Scan", "Schema": "pg_catalog", "Function Name": "generate_series" },
        ] } }]);
        let read = Read::Relation { schema: "demo".to_owned(), name: "a".to_owned() };
        assert_eq!(Plan::parse(&plan.to_string()).reads, [read]);
    }

    #[test]
    fn functions_are_found_wherever_they_are_called() {
        for (expression, functions, is_volatile) in [
            ("total()", &["total"][..], false),
            ("((a.x > 1) AND allowed(a.x, 'not(this)'::text))", &["allowed"], false),
            ("demo.\"Total\"(a.x)", &["Total"], false),
            ("'it''s(not)'::text", &[], false),
            ("(x = ANY ('{1,2}'::integer[]))", &[], false),
            ("(CURRENT_TIMESTAMP > a.x)", &[], true),
            ("COALESCE((a.x)::character varying(20), ''::text)", &[], false),
            ("(SubPlan 1)", &[], false),
            ("lower(upper(a.x))", &["lower", "upper"], false),
        ] {
            let plan = Plan::parse(&json!([{ "Plan": { "Output": [expression] } }]).to_string());
            assert_eq!(plan.functions.iter().collect::<Vec<_>>(), functions, "{expression}");
            assert_eq!(plan.is_volatile, is_volatile, "{expression}");
            assert!(plan.reads.is_empty(), "{expression}");
        }
        assert_eq!(Plan::parse(&json!("(a OPERATOR(x.===) b)").to_string()).reads, [Read::Everything]);
    }
}
