//! The third layer: how long the calls of each function take, and how they end, for `/metrics`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use convoke_model::{Failure, FunctionPath, Origin};
use metrics::{Counter, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use parking_lot::RwLock;

/// From a call's entrance to its answer.
const DURATION: &str = "convoke_call_duration_seconds";
/// How they ended.
const CALLS: &str = "convoke_calls_total";

/// Measures the calls of a project. Cheap to clone.
#[derive(Clone)]
pub struct Metering {
    recorder: Arc<dyn Recorder + Send + Sync>,
    /// By path. Only what was deployed is in it: callers cannot make it grow.
    functions: Arc<RwLock<HashMap<String, Arc<Meter>>>>,
    /// Of calls that came to no function.
    unknown: Arc<Meter>,
}

/// The figures of one function.
struct Meter {
    duration: Histogram,
    ok: Counter,
    by_function: Counter,
    by_caller: Counter,
    by_system: Counter,
    abandoned: Counter,
}

/// A call that is measured. One that is dropped before its end was abandoned by its caller.
pub(crate) struct Measured {
    meter: Arc<Meter>,
    began: Instant,
    is_over: bool,
}

impl Metering {
    /// Has a recorder keep what is measured.
    pub fn new(recorder: Arc<dyn Recorder + Send + Sync>) -> Self {
        let words = "From a call's entrance to its answer, by function.";
        recorder.describe_histogram(KeyName::from_const_str(DURATION), Some(Unit::Seconds), words.into());
        let words = "Calls, by function and by how they ended: ok, or whose fault it was, or abandoned.";
        recorder.describe_counter(KeyName::from_const_str(CALLS), Some(Unit::Count), words.into());
        let unknown = Arc::new(Meter::new(&*recorder, ""));
        Self { recorder, functions: Arc::default(), unknown }
    }

    /// A call of a function that there is.
    pub(crate) fn begin(&self, path: &FunctionPath, began: Instant) -> Measured {
        Measured { meter: self.meter(path.as_str()), began, is_over: false }
    }

    /// A call that came to no function.
    pub(crate) fn refused(&self, failure: &Failure, began: Instant) {
        self.unknown.end(Some(failure), began);
    }

    fn meter(&self, path: &str) -> Arc<Meter> {
        if let Some(meter) = self.functions.read().get(path) {
            return Arc::clone(meter);
        }
        let mut functions = self.functions.write();
        let meter = functions.entry(path.to_owned());
        Arc::clone(meter.or_insert_with(|| Arc::new(Meter::new(&*self.recorder, path))))
    }
}

impl Meter {
    fn new(recorder: &dyn Recorder, path: &str) -> Self {
        let metadata = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        let function = Label::new("function", path.to_owned());
        let ended = |ended| {
            let labels = vec![function.clone(), Label::from_static_parts("ended", ended)];
            recorder.register_counter(&Key::from_parts(CALLS, labels), &metadata)
        };
        Self {
            duration: recorder.register_histogram(&Key::from_parts(DURATION, vec![function.clone()]), &metadata),
            ok: ended("ok"),
            by_function: ended("function"),
            by_caller: ended("caller"),
            by_system: ended("system"),
            abandoned: ended("abandoned"),
        }
    }

    fn end(&self, failure: Option<&Failure>, began: Instant) {
        self.duration.record(began.elapsed().as_secs_f64());
        let counter = match failure.map(|failure| failure.origin) {
            None => &self.ok,
            Some(Origin::Function) => &self.by_function,
            Some(Origin::Caller) => &self.by_caller,
            Some(Origin::System) => &self.by_system,
        };
        counter.increment(1);
    }
}

impl Measured {
    pub(crate) fn end(mut self, failure: Option<&Failure>) {
        self.is_over = true;
        self.meter.end(failure, self.began);
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if !self.is_over {
            self.meter.duration.record(self.began.elapsed().as_secs_f64());
            self.meter.abandoned.increment(1);
        }
    }
}

impl fmt::Debug for Metering {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metering").finish_non_exhaustive()
    }
}
