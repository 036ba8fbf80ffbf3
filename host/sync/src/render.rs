//! A plan in words.

use std::fmt::{self, Write as _};

use crate::drift::{Change, Drift};
use crate::plan::{Orphan, OrphanKind, Plan, Step};

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text())
    }
}

impl Plan {
    /// What the plan would do and what it found, for people.
    pub fn text(&self) -> String {
        let mut out = format!("Plan for `{}`: {}\n", self.project, summary(self));
        for (at, step) in self.steps.iter().enumerate() {
            push_step(&mut out, at + 1, step);
        }
        push_list(&mut out, "No longer in the schema", self.orphans.iter().map(orphan));
        push_list(&mut out, "Changed by hand", self.drift.iter().map(ToString::to_string));
        push_list(&mut out, "To be known", self.notes.iter().cloned());
        push_list(
            &mut out,
            "In the way",
            self.problems.iter().map(|problem| problem.to_string().replace("\n  ", "\n      ")),
        );
        out.truncate(out.trim_end().len());
        out
    }
}

fn summary(plan: &Plan) -> String {
    let steps = match plan.steps.len() {
        0 => "nothing to do".to_owned(),
        1 => "1 step".to_owned(),
        count => format!("{count} steps"),
    };
    match plan.problems.len() {
        0 => steps,
        1 => format!("{steps}, 1 thing in the way"),
        count => format!("{steps}, {count} things in the way"),
    }
}

fn push_step(out: &mut String, position: usize, step: &Step) {
    let place = step.table.as_ref().map_or_else(String::new, |table| format!("table `{table}`: "));
    let _ = writeln!(out, "\n{position:>3}. {place}{} ({})", step.object, step.class.as_str());
    for line in step.sql.lines() {
        let _ = writeln!(out, "     {line}");
    }
    let _ = write!(out, "     lock: {}", step.lock);
    if let Some(rows) = step.rows {
        let _ = write!(out, "; about {} rows", grouped(rows));
    }
    out.push('\n');
    for hazard in &step.hazards {
        let _ = writeln!(out, "     {}: {}", hazard.id(), hazard.meaning());
    }
}

fn push_list(out: &mut String, title: &str, items: impl Iterator<Item = String>) {
    let mut is_first = true;
    for item in items {
        if is_first {
            let _ = writeln!(out, "\n{title}:");
            is_first = false;
        }
        let _ = writeln!(out, "  - {item}");
    }
}

fn orphan(orphan: &Orphan) -> String {
    let kind = match orphan.kind {
        OrphanKind::Table => "table",
        OrphanKind::Index => "index",
        OrphanKind::Field => "field",
    };
    let rows = orphan.rows.map_or_else(String::new, |rows| format!(", about {} documents", grouped(rows)));
    let state = if orphan.dropped {
        "dropped by this plan".to_owned()
    } else {
        format!("kept; `--allow-drop {}` drops it", orphan.path())
    };
    let hint = orphan.hint.as_ref().map_or_else(String::new, |hint| format!("\n    {hint}"));
    format!("{kind} `{}`{rows}: {state}{hint}", orphan.path())
}

impl fmt::Display for Drift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, kind, name, change, found } = self;
        let change = match change {
            Change::Missing => "is missing",
            Change::Extra => "is not Convoke's",
            Change::Changed => "was changed",
        };
        if kind == "table" || table == name {
            write!(formatter, "{kind} `{name}` {change}")?;
        } else {
            write!(formatter, "table `{table}`: {kind} `{name}` {change}")?;
        }
        match found {
            Some(found) => write!(formatter, ": {found}"),
            None => Ok(()),
        }
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
