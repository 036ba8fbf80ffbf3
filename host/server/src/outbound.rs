//! The gate for HTTP to the outside: an allow-list, a name resolved once and pinned, private addresses refused after
//! the resolution, no redirect followed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::uri::Scheme;
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};
use bytes::Bytes;
use convoke_engine::OutboundResponse;
use convoke_invoke::Gate;
use convoke_model::{Code, Failure};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The largest answer that an action may read.
const RESPONSE_BYTES_MAX: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long one of several addresses may take to answer: one packet may be lost, and its second try too.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Origins that may be reached.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    origins: Vec<Origin>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    /// `api.example.com`, or `.example.com` for every host below it.
    host: String,
    port: u16,
}

/// An entry of the allow-list that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not an origin such as `https://api.example.com` or `https://*.example.com:8443`")]
pub struct AllowListError(String);

impl AllowList {
    /// Reads entries of the form `scheme://host[:port]`, the host perhaps beginning with `*.`.
    ///
    /// # Errors
    /// At the first entry that is not one.
    pub fn parse(entries: &[String]) -> Result<Self, AllowListError> {
        let origins = entries.iter().map(|entry| origin(entry)).collect::<Result<_, _>>()?;
        Ok(Self { origins })
    }

    fn allows(&self, target: &Target) -> bool {
        self.origins.iter().any(|origin| {
            let host = match origin.host.strip_prefix('.') {
                Some(_) => target.host.ends_with(&origin.host),
                None => target.host == origin.host,
            };
            host && origin.scheme == target.scheme && origin.port == target.port
        })
    }
}

fn origin(entry: &str) -> Result<Origin, AllowListError> {
    let refused = || AllowListError(entry.to_owned());
    let uri: Uri = entry.replacen("//*.", "//any.", 1).parse().map_err(|_| refused())?;
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(refused());
    }
    let target = Target::new(&uri).ok_or_else(refused)?;
    let host = if entry.contains("//*.") {
        target.host.strip_prefix("any").ok_or_else(refused)?.to_owned()
    } else {
        target.host
    };
    Ok(Origin { scheme: target.scheme, host, port: target.port })
}

#[derive(Debug)]
struct Target {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Target {
    fn new(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme()?.clone();
        let default = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        let host = uri.host()?.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        Some(Self { scheme, host, port: uri.port_u16().unwrap_or(default) }).filter(|target| !target.host.is_empty())
    }
}

/// Sends what the allow-list allows.
pub(crate) struct HttpGate {
    allow: AllowList,
    tls: TlsConnector,
    /// Which addresses may be reached: those of the public internet. A test's server has none of these.
    reachable: fn(IpAddr) -> bool,
}

/// A request as a guest writes it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutboundRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    timeout_ms: Option<u64>,
}

impl HttpGate {
    pub(crate) fn new(allow: AllowList, tls: TlsConnector) -> Self {
        Self { allow, tls, reachable: is_public }
    }

    /// TLS to the outside, once a process.
    pub(crate) fn connector() -> TlsConnector {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    async fn exchange(&self, request: OutboundRequest, body: Vec<u8>) -> Result<OutboundResponse, Failure> {
        let uri: Uri = request.url.parse().map_err(|_| invalid(format!("`{}` is not a URL", request.url)))?;
        let target =
            Target::new(&uri).ok_or_else(|| invalid(format!("`{}` is not an http or https URL", request.url)))?;
        if !self.allow.allows(&target) {
            let words = format!(
                "`{}://{}:{}` is not on the project's list of outbound hosts ([outbound] allow in convoke.toml)",
                target.scheme, target.host, target.port
            );
            return Err(Failure::function(Code::Forbidden, words));
        }
        let message = build(&request, &uri, &target, body)?;
        let stream = connect(&target, self.reachable).await?;
        if target.scheme == Scheme::HTTP {
            return send(stream, message).await;
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| invalid(format!("`{}` is not a host's name", target.host)))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| unreachable(&target, &error.to_string()))?;
        send(stream, message).await
    }
}

impl Gate for HttpGate {
    fn send<'a>(
        &'a self,
        request: &'a str,
        body: Vec<u8>,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<OutboundResponse, Failure>> {
        Box::pin(async move {
            let request: OutboundRequest =
                serde_json::from_str(request).map_err(|error| invalid(format!("the request is not valid: {error}")))?;
            let most = request.timeout_ms.map_or(TIMEOUT, Duration::from_millis).min(deadline - Instant::now());
            match timeout(most, self.exchange(request, body)).await {
                Ok(result) => result,
                Err(_) => Err(Failure::function(Code::DeadlineExceeded, "the outbound request took too long")),
            }
        })
    }
}

fn build(
    request: &OutboundRequest,
    uri: &Uri,
    target: &Target,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, Failure> {
    let method: Method =
        request.method.parse().map_err(|_| invalid(format!("`{}` is not a method", request.method)))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut message = Request::new(Full::new(Bytes::from(body)));
    *message.method_mut() = method;
    *message.uri_mut() = path.parse().map_err(|_| invalid(format!("`{path}` is not a path")))?;
    for (name, value) in &request.headers {
        let header: HeaderName = name.parse().map_err(|_| invalid(format!("`{name}` is not a header's name")))?;
        // These say how the message travels, which is the host's business.
        if ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te"].contains(&header.as_str()) {
            return Err(invalid(format!("the header `{name}` is set by the host")));
        }
        let value = HeaderValue::from_str(value).map_err(|_| invalid(format!("the value of `{name}` is not valid")))?;
        message.headers_mut().append(header, value);
    }
    let authority = uri.authority().map_or(target.host.as_str(), |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(|_| invalid(format!("`{authority}` is not a host")))?;
    message.headers_mut().insert(axum::http::header::HOST, host);
    Ok(message)
}

/// Resolves the name once and connects to an address of that answer, so that nothing can change in between.
async fn connect(target: &Target, reachable: fn(IpAddr) -> bool) -> Result<TcpStream, Failure> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((target.host.as_str(), target.port))
        .await
        .map_err(|error| unreachable(target, &error.to_string()))?
        .collect();
    if let Some(private) = addresses.iter().find(|address| !reachable(address.ip())) {
        let words = format!("`{}` resolves to an address that is not public", target.host);
        return Err(Failure::function(Code::Forbidden, words).with_internal(private.to_string()));
    }
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        last = match timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it does not answer in time".to_owned(),
        };
    }
    Err(unreachable(target, &last))
}

async fn send<S>(stream: S, message: Request<Full<Bytes>>) -> Result<OutboundResponse, Failure>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: &dyn std::error::Error| {
        Failure::function(
            Code::Application("OUTBOUND_FAILED".to_owned()),
            format!("the outbound request failed: {error}"),
        )
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends when this does, also where it is given up.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let response = sender.send_request(message).await.map_err(|error| failed(&error))?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, RESPONSE_BYTES_MAX).collect().await.map_err(|error| failed(error.as_ref()))?;
    let headers: Vec<(&str, std::borrow::Cow<'_, str>)> =
        head.headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()))).collect();
    Ok(OutboundResponse {
        status: head.status.as_u16(),
        headers: crate::respond::text(&headers),
        body: body.to_bytes().to_vec(),
    })
}

/// Whether an address belongs to the public internet; what is unknown does not.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

/// IANA's special-purpose registry for IPv4.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocol = a == 192 && b == 0 && c == 0;
    let relay = a == 192 && b == 88 && c == 99;
    let benchmarking = a == 198 && (b == 18 || b == 19);
    let reserved = a == 0 || a >= 224;
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || protocol
        || relay
        || benchmarking
        || reserved)
}

/// Global unicast (2000::/3) without documentation, and without the ranges that carry an IPv4 address inside.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let global = segments[0] & 0xe000 == 0x2000;
    let teredo_or_documentation = segments[0] == 0x2001 && (segments[1] < 0x0200 || segments[1] == 0x0db8);
    let six_to_four = segments[0] == 0x2002;
    global && !teredo_or_documentation && !six_to_four && segments[0] != 0x3fff
}

fn invalid(words: String) -> Failure {
    Failure::function(Code::InvalidArgs, words)
}

fn unreachable(target: &Target, detail: &str) -> Failure {
    let words = format!("`{}` cannot be reached: {detail}", target.host);
    Failure::function(Code::Application("OUTBOUND_FAILED".to_owned()), words)
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
