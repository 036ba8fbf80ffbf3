//! WASI 0.2 with nothing behind it: the interfaces that a language's standard library imports, whether it uses them or not.
//!
//! No files, no sockets, no environment, no input. What is printed goes to the call's log, what is printed as an error to
//! the host's. The clock and the randomness are the call's own.

use wasmtime::component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType};
use wasmtime::{Result, StoreContextMut};

use convoke_model::Failure;

use crate::state::{State, Stop};

/// The version whose interfaces are offered; any 0.2 component may ask for them.
const VERSION: &str = "0.2.6";
/// What a stream takes at once.
const WRITE_BYTES_MAX: u64 = 64 << 10;
/// The most random bytes at once.
const RANDOM_BYTES_MAX: u64 = 65_536;

struct IoError;
struct Pollable;
struct InputStream;
struct OutputStream;
struct TerminalInput;
struct TerminalOutput;

const STDOUT: u32 = 1;
const STDERR: u32 = 2;

#[derive(ComponentType, Lower, Lift)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lower, Lift)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Context<'a> = StoreContextMut<'a, State>;
type Instance<'a> = LinkerInstance<'a, State>;

pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> Result<()> {
    add_cli(linker)?;
    add_terminals(linker)?;
    add_clocks(linker)?;
    add_random(linker)?;
    add_io(linker)
}

fn instance<'a>(linker: &'a mut Linker<State>, name: &str) -> Result<Instance<'a>> {
    linker.instance(&format!("wasi:{name}@{VERSION}"))
}

fn resource<T: 'static>(instance: &mut Instance<'_>, name: &str) -> Result<()> {
    instance.resource(name, ResourceType::host::<T>(), |_, _| Ok(()))
}

fn add_cli(linker: &mut Linker<State>) -> Result<()> {
    let mut environment = instance(linker, "cli/environment")?;
    environment.func_wrap("get-environment", |_: Context<'_>, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    environment.func_wrap("get-arguments", |_: Context<'_>, (): ()| Ok((Vec::<String>::new(),)))?;
    environment.func_wrap("initial-cwd", |_: Context<'_>, (): ()| Ok((None::<String>,)))?;

    instance(linker, "cli/exit")?.func_wrap("exit", |_: Context<'_>, (_,): (Result<(), ()>,)| -> Result<()> {
        Err(Stop::failure(Failure::trap("the function ended its own process")).into())
    })?;

    instance(linker, "cli/stdin")?
        .func_wrap("get-stdin", |_: Context<'_>, (): ()| Ok((Resource::<InputStream>::new_own(0),)))?;
    instance(linker, "cli/stdout")?
        .func_wrap("get-stdout", |_: Context<'_>, (): ()| Ok((Resource::<OutputStream>::new_own(STDOUT),)))?;
    instance(linker, "cli/stderr")?
        .func_wrap("get-stderr", |_: Context<'_>, (): ()| Ok((Resource::<OutputStream>::new_own(STDERR),)))
}

fn add_terminals(linker: &mut Linker<State>) -> Result<()> {
    resource::<TerminalInput>(&mut instance(linker, "cli/terminal-input")?, "terminal-input")?;
    resource::<TerminalOutput>(&mut instance(linker, "cli/terminal-output")?, "terminal-output")?;
    instance(linker, "cli/terminal-stdin")?
        .func_wrap("get-terminal-stdin", |_: Context<'_>, (): ()| Ok((None::<Resource<TerminalInput>>,)))?;
    for name in ["stdout", "stderr"] {
        instance(linker, &format!("cli/terminal-{name}"))?
            .func_wrap(&format!("get-terminal-{name}"), |_: Context<'_>, (): ()| {
                Ok((None::<Resource<TerminalOutput>>,))
            })?;
    }
    Ok(())
}

fn add_clocks(linker: &mut Linker<State>) -> Result<()> {
    let mut monotonic = instance(linker, "clocks/monotonic-clock")?;
    monotonic.func_wrap("now", |mut store: Context<'_>, (): ()| {
        store.data_mut().volatile = true;
        Ok((nanoseconds(store.data().elapsed_ms()),))
    })?;
    monotonic.func_wrap("resolution", |_: Context<'_>, (): ()| Ok((1_000_000u64,)))?;
    for name in ["subscribe-duration", "subscribe-instant"] {
        monotonic.func_wrap(name, |_: Context<'_>, (_,): (u64,)| Ok((Resource::<Pollable>::new_own(0),)))?;
    }
    let mut wall = instance(linker, "clocks/wall-clock")?;
    wall.func_wrap("now", |mut store: Context<'_>, (): ()| {
        store.data_mut().volatile = true;
        let now = nanoseconds(store.data().now_ms());
        let (seconds, rest) = (now / 1_000_000_000, now % 1_000_000_000);
        Ok((Datetime { seconds, nanoseconds: u32::try_from(rest)? },))
    })?;
    wall.func_wrap("resolution", |_: Context<'_>, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))
}

#[expect(clippy::cast_sign_loss, reason = "times of calls are after 1970")]
fn nanoseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e6) as u64
}

fn add_random(linker: &mut Linker<State>) -> Result<()> {
    for (name, prefix) in [("random", "get-random"), ("insecure", "get-insecure-random")] {
        let mut random = instance(linker, &format!("random/{name}"))?;
        random.func_wrap(&format!("{prefix}-bytes"), |mut store: Context<'_>, (count,): (u64,)| {
            let count = count.min(RANDOM_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(count)?];
            store.data_mut().count()?;
            store.data_mut().fill_random(&mut bytes);
            store.data_mut().volatile = true;
            Ok((bytes,))
        })?;
        random.func_wrap(&format!("{prefix}-u64"), |mut store: Context<'_>, (): ()| {
            store.data_mut().count()?;
            store.data_mut().volatile = true;
            Ok((store.data_mut().random_u64(),))
        })?;
    }
    // Hash maps ask for it, whose order no result should show.
    instance(linker, "random/insecure-seed")?.func_wrap("insecure-seed", |mut store: Context<'_>, (): ()| {
        let state = store.data_mut();
        Ok(((state.random_u64(), state.random_u64()),))
    })
}

fn add_io(linker: &mut Linker<State>) -> Result<()> {
    let mut error = instance(linker, "io/error")?;
    resource::<IoError>(&mut error, "error")?;
    error.func_wrap("[method]error.to-debug-string", |_: Context<'_>, (_,): (Resource<IoError>,)| {
        Ok((String::new(),))
    })?;

    let mut poll = instance(linker, "io/poll")?;
    resource::<Pollable>(&mut poll, "pollable")?;
    poll.func_wrap("[method]pollable.ready", |_: Context<'_>, (_,): (Resource<Pollable>,)| Ok((true,)))?;
    poll.func_wrap("[method]pollable.block", |mut store: Context<'_>, (_,): (Resource<Pollable>,)| {
        Ok(store.data_mut().count()?)
    })?;
    poll.func_wrap("poll", |mut store: Context<'_>, (pollables,): (Vec<Resource<Pollable>>,)| {
        store.data_mut().count()?;
        Ok(((0..u32::try_from(pollables.len())?).collect::<Vec<u32>>(),))
    })?;
    add_streams(&mut instance(linker, "io/streams")?)
}

fn add_streams(streams: &mut Instance<'_>) -> Result<()> {
    // A component's type of `streams` refers to these of the neighbouring interfaces.
    resource::<IoError>(streams, "error")?;
    resource::<Pollable>(streams, "pollable")?;
    resource::<InputStream>(streams, "input-stream")?;
    resource::<OutputStream>(streams, "output-stream")?;
    for name in ["read", "blocking-read"] {
        streams.func_wrap(
            &format!("[method]input-stream.{name}"),
            |_: Context<'_>, (_, _): (Resource<InputStream>, u64)| Ok((Err::<Vec<u8>, _>(StreamError::Closed),)),
        )?;
    }
    streams.func_wrap("[method]input-stream.subscribe", |_: Context<'_>, (_,): (Resource<InputStream>,)| {
        Ok((Resource::<Pollable>::new_own(0),))
    })?;
    streams.func_wrap("[method]output-stream.subscribe", |_: Context<'_>, (_,): (Resource<OutputStream>,)| {
        Ok((Resource::<Pollable>::new_own(0),))
    })?;
    streams.func_wrap("[method]output-stream.check-write", |_: Context<'_>, (_,): (Resource<OutputStream>,)| {
        Ok((Ok::<_, StreamError>(WRITE_BYTES_MAX),))
    })?;
    for name in ["flush", "blocking-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |_: Context<'_>, (_,): (Resource<OutputStream>,)| Ok((Ok::<_, StreamError>(()),)),
        )?;
    }
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut store: Context<'_>, (stream, bytes): (Resource<OutputStream>, Vec<u8>)| {
                print(store.data_mut(), stream.rep(), &bytes)?;
                Ok((Ok::<_, StreamError>(()),))
            },
        )?;
    }
    Ok(())
}

fn print(state: &mut State, stream: u32, bytes: &[u8]) -> Result<()> {
    state.count()?;
    if stream == STDERR {
        state.push_stderr(bytes);
        return Ok(());
    }
    for line in String::from_utf8_lossy(bytes).lines() {
        state.log("log", line)?;
    }
    Ok(())
}
