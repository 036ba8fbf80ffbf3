//! A component that can be called.

use std::collections::HashMap;

use convoke_model::{ArgumentsValidator, FunctionManifest, Kind, Manifest};

use crate::bindings::ComponentPre;
use crate::state::State;

/// A component, compiled, checked and linked. Made once for each digest; calls share it.
pub struct ComponentVersion {
    pub(crate) digest: String,
    pub(crate) manifest: Manifest,
    pub(crate) functions: HashMap<String, Function>,
    pub(crate) synchronous: ComponentPre<State>,
    /// None where no function is an action.
    pub(crate) concurrent: Option<ComponentPre<State>>,
}

#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) position: usize,
    pub(crate) arguments: ArgumentsValidator,
}

impl ComponentVersion {
    /// SHA-256 of the component, in hexadecimal: the version's name.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A function and the check of its arguments.
    pub fn function(&self, name: &str) -> Option<(&FunctionManifest, &ArgumentsValidator)> {
        let function = self.functions.get(name)?;
        Some((&self.manifest.functions[function.position], &function.arguments))
    }

    pub(crate) fn pre(&self, kind: Kind) -> Option<&ComponentPre<State>> {
        match kind {
            Kind::Query | Kind::Mutation | Kind::Rule => Some(&self.synchronous),
            Kind::Action => self.concurrent.as_ref(),
        }
    }
}

impl std::fmt::Debug for ComponentVersion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ComponentVersion").field("digest", &self.digest).finish_non_exhaustive()
    }
}
