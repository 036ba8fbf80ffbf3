//! The allow-list of outbound HTTP, as text: which origins an entry may name.

/// The origin in its normal form: lower case, no default port, no trailing slash.
///
/// An entry is `scheme://host[:port]`, where the host's first label may be `*`. A bare `*` host would open the gate to
/// everything, a path would promise a check that the gate does not make.
pub(crate) fn normal_origin(text: &str) -> Result<String, &'static str> {
    let lower = text.trim_end_matches('/').to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or("it has no scheme")?;
    let default_port = match scheme {
        "https" => "443",
        "http" => "80",
        _ => return Err("the scheme is neither `https` nor `http`"),
    };
    if rest.contains(['/', '?', '#']) {
        return Err("it has a path");
    }
    if rest.contains('@') {
        return Err("it has a user name");
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    check_host(host)?;
    if let Some(port) = port
        && !port.parse::<u16>().is_ok_and(|port| port > 0)
    {
        return Err("the port is no number from 1 to 65535");
    }
    Ok(match port.filter(|port| *port != default_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

fn check_host(host: &str) -> Result<(), &'static str> {
    if host.starts_with('[') {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        return address
            .parse::<std::net::Ipv6Addr>()
            .map(|_| ())
            .map_err(|_| "the address in brackets is no IPv6 address");
    }
    if !host.is_ascii() {
        return Err("the host is not ASCII; write its `xn--` form");
    }
    let (wild, name) = host.strip_prefix("*.").map_or((false, host), |rest| (true, rest));
    if name.is_empty() {
        return Err("it has no host");
    }
    if name.contains('*') {
        return Err("`*` stands for the first label only, with a domain after it");
    }
    let labels_are_well = name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    if !labels_are_well || name.len() > 253 {
        return Err("the host is no domain name");
    }
    // `*.com` is half the world, never a service.
    if wild && !name.contains('.') {
        return Err("`*` needs a domain of at least two labels after it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::normal_origin;

    #[test]
    fn origins_in_their_normal_form() {
        for (text, normal) in [
            ("https://api.example.com", "https://api.example.com"),
            ("HTTPS://API.Example.com/", "https://api.example.com"),
            ("https://*.stripe.com", "https://*.stripe.com"),
            ("https://api.example.com:443", "https://api.example.com"),
            ("http://api.example.com:8080", "http://api.example.com:8080"),
            ("http://localhost:9000", "http://localhost:9000"),
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
            ("http://[::1]:9000", "http://[::1]:9000"),
            ("http://[::1]", "http://[::1]"),
        ] {
            assert_eq!(normal_origin(text).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn what_is_no_origin() {
        for text in [
            "",
            "api.example.com",
            "ftp://example.com",
            "https://",
            "https://*",
            "https://*.com",
            "https://api.*.com",
            "https://*api.example.com",
            "https://example.com/path",
            "https://user@example.com",
            "https://example.com:0",
            "https://example.com:99999",
            "https://exa mple.com",
            "https://-example.com",
            "https://exämple.com",
            "https://[::g]",
        ] {
            assert!(normal_origin(text).is_err(), "{text}");
        }
    }
}
