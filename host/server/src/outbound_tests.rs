use std::convert::Infallible;

use axum::http::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use rcgen::CertifiedKey;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

fn allowed(list: &[&str], url: &str) -> bool {
    let entries: Vec<String> = list.iter().map(|entry| (*entry).to_owned()).collect();
    let target = Target::new(&url.parse().expect("URL")).expect("http");
    AllowList::parse(&entries).expect("origins").allows(&target)
}

#[test]
fn only_listed_origins() {
    assert!(allowed(&["https://api.example.com"], "https://API.example.com/v1?x=1"));
    assert!(allowed(&["https://*.example.com"], "https://a.b.example.com"));
    assert!(!allowed(&["https://*.example.com"], "https://example.com"));
    assert!(!allowed(&["https://*.example.com"], "https://badexample.com"));
    assert!(!allowed(&["https://api.example.com"], "http://api.example.com"));
    assert!(!allowed(&["https://api.example.com"], "https://api.example.com:8443"));
    assert!(!allowed(&[], "https://api.example.com"));
    for entry in ["example.com", "ftp://example.com", "https://a.example.com/path", "https://u@example.com"] {
        assert!(AllowList::parse(&[entry.to_owned()]).is_err(), "{entry}");
    }
}

#[test]
fn private_addresses_are_not_public() {
    for text in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "::ffff:10.0.0.1",
        "2002:a00:1::",
        "2001:db8::1",
        "64:ff9b::a00:1",
    ] {
        assert!(!is_public(text.parse().expect("address")), "{text}");
    }
    for text in ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111"] {
        assert!(is_public(text.parse().expect("address")), "{text}");
    }
}

/// An HTTPS server on this machine, and a gate that trusts its certificate and may reach it.
struct Local {
    origin: String,
    gate: HttpGate,
}

impl Local {
    async fn start() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(serve(listener, TlsAcceptor::from(Arc::new(config))));

        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a root");
        let trusting = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let origin = format!("https://localhost:{port}");
        let mut gate =
            HttpGate::new(AllowList::parse(std::slice::from_ref(&origin)).expect("an origin"), HttpGate::connector());
        gate.tls = TlsConnector::from(Arc::new(trusting));
        // The name has an address of each family; the server listens on one.
        gate.reachable = |_| true;
        Self { origin, gate }
    }

    async fn send(&self, request: serde_json::Value, body: &str) -> Result<OutboundResponse, Failure> {
        let deadline = Instant::now() + Duration::from_mins(1);
        Gate::send(&self.gate, &request.to_string(), body.as_bytes().to_vec(), deadline).await
    }

    async fn get(&self, path: &str) -> Result<OutboundResponse, Failure> {
        self.send(json!({ "method": "GET", "url": format!("{}{path}", self.origin) }), "").await
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let tls = tls.clone();
        tokio::spawn(async move {
            // A client that does not trust the certificate ends the handshake.
            let Ok(stream) = tls.accept(stream).await else { return };
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer))
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let sent = request.headers().get("x-source").cloned();
    let method = request.method().to_string();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let mut answer = Response::new(Full::new(Bytes::new()));
    match path.as_str() {
        "/echo" => {
            let source = sent.and_then(|value| value.to_str().map(str::to_owned).ok()).unwrap_or_default();
            let text = format!("{method} from {source}: {}", String::from_utf8_lossy(&body));
            answer = Response::builder()
                .status(201)
                .header("x-a", "1")
                .header("x-a", "2")
                .body(text.into())
                .expect("an answer");
        }
        "/moved" => {
            *answer.status_mut() = axum::http::StatusCode::FOUND;
            answer.headers_mut().insert("location", HeaderValue::from_static("/echo"));
        }
        "/largest" => *answer.body_mut() = vec![b'x'; RESPONSE_BYTES_MAX].into(),
        "/too-large" => *answer.body_mut() = vec![b'x'; RESPONSE_BYTES_MAX + 1].into(),
        _ => std::future::pending().await,
    }
    Ok(answer)
}

#[tokio::test]
async fn a_request_by_tls_and_its_answer() {
    let local = Local::start().await;
    let request = json!({
        "method": "POST", "url": format!("{}/echo?x=1", local.origin), "headers": [["x-source", "shop"]],
    });
    let response = local.send(request, "hello").await.expect("an answer");
    assert_eq!((response.status, String::from_utf8_lossy(&response.body).as_ref()), (201, "POST from shop: hello"));
    let headers: Vec<(String, String)> = serde_json::from_str(&response.headers).expect("pairs");
    let values: Vec<_> = headers.iter().filter(|(name, _)| name == "x-a").map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["1", "2"]);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let local = Local::start().await;
    let response = local.get("/moved").await.expect("an answer");
    assert_eq!(response.status, 302);
    assert!(response.headers.contains(r#"["location","/echo"]"#), "{}", response.headers);
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit() {
    let local = Local::start().await;
    assert_eq!(local.get("/largest").await.expect("an answer").body.len(), RESPONSE_BYTES_MAX);
    assert_eq!(local.get("/too-large").await.expect_err("too large").code.as_str(), "OUTBOUND_FAILED");
}

#[tokio::test]
async fn a_server_that_says_nothing_runs_into_the_requests_time() {
    let local = Local::start().await;
    let request = json!({ "method": "GET", "url": format!("{}/silent", local.origin), "timeoutMs": 50 });
    assert_eq!(local.send(request, "").await.expect_err("no answer").code, Code::DeadlineExceeded);
    // No time to wait is so long that it overflows.
    let request = json!({ "method": "GET", "url": format!("{}/echo", local.origin), "timeoutMs": u64::MAX });
    assert_eq!(local.send(request, "").await.expect("an answer").status, 201);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let mut local = Local::start().await;
    local.gate.tls = HttpGate::new(AllowList::default(), HttpGate::connector()).tls;
    assert_eq!(local.get("/echo").await.expect_err("no trust").code.as_str(), "OUTBOUND_FAILED");
}

#[tokio::test]
async fn an_address_of_this_machine_is_refused() {
    let mut local = Local::start().await;
    local.gate.reachable = HttpGate::new(AllowList::default(), HttpGate::connector()).reachable;
    assert_eq!(local.get("/echo").await.expect_err("not public").code, Code::Forbidden);
}

#[tokio::test]
async fn what_is_given_up_ends_its_connection() {
    use tokio::io::AsyncReadExt;

    let (near, mut far) = tokio::io::duplex(1 << 10);
    let message = Request::new(Full::new(Bytes::new()));
    assert!(timeout(Duration::from_millis(50), send(near, message)).await.is_err(), "nobody answers");
    let mut asked = Vec::new();
    let ended = timeout(Duration::from_mins(1), far.read_to_end(&mut asked));
    ended.await.expect("an end in time").expect("an end");
    assert!(asked.starts_with(b"GET / HTTP/1.1"));
}
