//! From the bytes of a component to a version that can be called.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use convoke_model::{ArgumentsValidator, Kind, Manifest, ManifestError, SchemaError};
use thiserror::Error;
use wasmtime::component::Component;

use crate::bindings::ComponentPre;
use crate::call::{Call, CallError};
use crate::check;
use crate::engine::{Engine, Lane};
use crate::rooms::Room;
use crate::state::{Clock, State};
use crate::version::{ComponentVersion, Function};

/// The largest component that is looked at; Python's are 18 MiB.
const WASM_BYTES_MAX: usize = 64 << 20;
/// A component says what it is within this, or is refused.
const MANIFEST_MAX: Duration = Duration::from_secs(2);

/// Why a component is refused. Each names what the author has to change.
#[derive(Debug, Error)]
pub enum LoadError {
    #[error("the component has {bytes} bytes, the limit is {WASM_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("not a WebAssembly component that this host can compile")]
    Compile(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "the component imports `{import}`, which {} not have",
        if kinds.is_empty() { "no world of this host does".to_owned() } else { format!("the world of its kinds ({kinds}) does") }
    )]
    ForbiddenImport { import: String, kinds: String },
    #[error(
        "the component does not export `{}/functions@{}.x`: build it with a Convoke SDK",
        check::PACKAGE,
        check::VERSION
    )]
    MissingExport,
    #[error("the component asks for something that this host does not offer")]
    Link(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the component failed when it was asked for its manifest: {0}")]
    Manifest(String),
    #[error(transparent)]
    InvalidManifest(#[from] ManifestError),
    #[error("function `{function}`: {source}")]
    Schema {
        function: String,
        #[source]
        source: SchemaError,
    },
}

impl Engine {
    /// Compiles (or loads from the cache), checks and links a component, and asks it for its manifest. The compilation
    /// runs on a thread where it blocks nobody.
    ///
    /// # Errors
    /// When the component is not one, imports what its functions' kinds do not have, or describes itself wrongly.
    pub async fn load(&self, wasm: Vec<u8>) -> Result<ComponentVersion, LoadError> {
        if wasm.len() > WASM_BYTES_MAX {
            return Err(LoadError::TooLarge { bytes: wasm.len() });
        }
        let engine = self.clone();
        let compiled = tokio::task::spawn_blocking(move || {
            let pre = engine.link(&engine.inner.synchronous, &wasm)?;
            Ok((pre, wasm))
        });
        let ((pre, imports), wasm) = join(compiled).await?;
        let manifest = self.ask_manifest(&pre).await?;
        let kinds: BTreeSet<Kind> = manifest.functions.iter().map(|function| function.kind).collect();
        if let Some(import) = check::forbidden(&imports, &kinds) {
            let kinds = kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
            return Err(LoadError::ForbiddenImport { import: import.to_owned(), kinds });
        }
        let functions = compile_schemas(&manifest)?;
        let digest = crate::cache::digest(&wasm);
        let concurrent = if kinds.contains(&Kind::Action) {
            let engine = self.clone();
            let linked =
                join(tokio::task::spawn_blocking(move || engine.link(&engine.inner.concurrent, &wasm))).await?;
            Some(linked.0)
        } else {
            None
        };
        Ok(ComponentVersion { digest, manifest, functions, synchronous: pre, concurrent })
    }

    fn link(&self, lane: &Lane, wasm: &[u8]) -> Result<(ComponentPre<State>, Vec<String>), LoadError> {
        let component =
            self.inner.cache.component(&lane.engine, wasm).map_err(|error| LoadError::Compile(error.into()))?;
        let imports = check::imports(&lane.engine, &component);
        if let Some(import) = check::forbidden(&imports, &BTreeSet::from(Kind::ALL)) {
            return Err(LoadError::ForbiddenImport { import: import.to_owned(), kinds: String::new() });
        }
        if !check::exports_functions(&lane.engine, &component) {
            return Err(LoadError::MissingExport);
        }
        Ok((pre_instantiate(lane, &component)?, imports))
    }

    async fn ask_manifest(&self, pre: &ComponentPre<State>) -> Result<Manifest, LoadError> {
        let call = Call {
            // A rule's world has no imports: nothing that a manifest could depend on.
            kind: Kind::Rule,
            room: Room::Entry,
            function: "",
            args: "",
            request_id: "",
            deadline: Instant::now() + MANIFEST_MAX,
            clock: Clock { now_ms: 0.0, seed: [0; 32] },
            database: None,
            outside: None,
        };
        match self.manifest_text(pre, call).await {
            Ok(text) => Ok(Manifest::parse(&text)?),
            Err(CallError::Failure(failure)) => {
                let words =
                    if failure.message.is_empty() { failure.internal.unwrap_or_default() } else { failure.message };
                Err(LoadError::Manifest(words))
            }
            Err(error) => Err(LoadError::Manifest(format!("{error:?}"))),
        }
    }
}

fn pre_instantiate(lane: &Lane, component: &Component) -> Result<ComponentPre<State>, LoadError> {
    lane.linker.instantiate_pre(component).and_then(ComponentPre::new).map_err(|error| LoadError::Link(error.into()))
}

fn compile_schemas(manifest: &Manifest) -> Result<HashMap<String, Function>, LoadError> {
    manifest
        .functions
        .iter()
        .enumerate()
        .map(|(position, function)| {
            let arguments = ArgumentsValidator::new(&function.args)
                .map_err(|source| LoadError::Schema { function: function.name.clone(), source })?;
            Ok((function.name.clone(), Function { position, arguments }))
        })
        .collect()
}

async fn join<T>(task: tokio::task::JoinHandle<Result<T, LoadError>>) -> Result<T, LoadError> {
    task.await.unwrap_or_else(|error| Err(LoadError::Compile(error.into())))
}
