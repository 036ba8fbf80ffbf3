//! The port to serve on.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::failure::Failure;

/// Takes the address, or says who may have it.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let failure = match error.kind() {
            io::ErrorKind::AddrInUse => {
                Failure::new(format!("port {} of {} is taken by another program", address.port(), address.ip()))
            }
            io::ErrorKind::PermissionDenied => {
                Failure::new(format!("port {} may not be used by this user", address.port()))
            }
            io::ErrorKind::AddrNotAvailable => {
                return Failure::new(format!("this machine has no address {}", address.ip()))
                    .hint("leave out `--host`, or use `--host 0.0.0.0` for all addresses");
            }
            _ => Failure::new(format!("port {} of {} cannot be used", address.port(), address.ip())).cause(&error),
        };
        let other = address.port().checked_add(1).filter(|port| *port > 1024).unwrap_or(crate::args::PORT);
        failure.hint(format!("choose another one: `--port {other}`"))
    })
}
