//! Which version serves a function.
//!
//! A [`Deployment`] is made once a switch and never changes; a call takes it once and finishes on it, whatever is
//! switched meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use convoke_engine::ComponentVersion;
use convoke_model::{ArgumentsValidator, FunctionManifest, FunctionPath, Kind, Schema, SchemaError, Tables};
use thiserror::Error;

/// A set of components that serve together.
#[derive(Debug, Default)]
pub struct Deployment {
    tables: Arc<Tables>,
    components: BTreeMap<String, Arc<ComponentVersion>>,
    functions: HashMap<String, Function>,
}

/// A function and the version that serves it.
#[derive(Debug)]
pub struct Function {
    path: FunctionPath,
    kind: Kind,
    version: Arc<ComponentVersion>,
    reads_often: AtomicBool,
}

/// A component whose name cannot be a module's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` cannot be a module's name: ASCII letters, digits and underscores, parts joined by `/`")]
pub struct ModuleNameError(pub String);

/// Why components cannot serve together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeploymentError {
    #[error(transparent)]
    Module(#[from] ModuleNameError),
    #[error("a table's documents cannot be checked")]
    Schema(#[from] SchemaError),
}

impl Deployment {
    /// Puts components together under their modules' names.
    pub fn new(components: BTreeMap<String, Arc<ComponentVersion>>, schema: Schema) -> Result<Self, DeploymentError> {
        let mut functions = HashMap::new();
        for (module, version) in &components {
            for function in &version.manifest().functions {
                let text = format!("{module}:{}", function.name);
                let path = FunctionPath::parse(&text).map_err(|_| ModuleNameError(module.clone()))?;
                let function = Function {
                    path,
                    kind: function.kind,
                    version: Arc::clone(version),
                    reads_often: AtomicBool::new(false),
                };
                functions.insert(text, function);
            }
        }
        Ok(Self { tables: Arc::new(Tables::new(schema)?), components, functions })
    }

    /// The tables that the components declare.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// The versions by module.
    pub fn components(&self) -> &BTreeMap<String, Arc<ComponentVersion>> {
        &self.components
    }

    /// The function with this canonical path.
    pub fn function(&self, path: &str) -> Option<&Function> {
        self.functions.get(path)
    }

    /// All functions, sorted by path.
    pub fn functions(&self) -> Vec<&Function> {
        let mut functions: Vec<&Function> = self.functions.values().collect();
        functions.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        functions
    }

    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }
}

impl Function {
    pub fn path(&self) -> &FunctionPath {
        &self.path
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn version(&self) -> &ComponentVersion {
        &self.version
    }

    /// What the version says of the function, and the check of its arguments.
    pub fn manifest(&self) -> Option<(&FunctionManifest, &ArgumentsValidator)> {
        self.version.function(self.path.function())
    }

    /// Whether the function was seen to read more than once, so that it wants a snapshot from the start.
    pub fn reads_often(&self) -> bool {
        self.reads_often.load(Ordering::Relaxed)
    }

    pub fn set_reads_often(&self) {
        self.reads_often.store(true, Ordering::Relaxed);
    }
}

/// The deployment that new calls take.
#[derive(Debug, Default)]
pub struct Deployments {
    current: ArcSwap<Deployment>,
}

impl Deployments {
    pub fn current(&self) -> Arc<Deployment> {
        self.current.load_full()
    }

    /// Lets new calls take another deployment; running ones finish on theirs.
    pub fn switch(&self, deployment: Deployment) {
        self.current.store(Arc::new(deployment));
    }
}
