//! Connections to a listener that are taken on to a target, each direction by whoever breaks it.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A listener on a free loopback port, and where it listens.
pub(super) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Gives each client and its own connection to the target to `carry`, as long as the process lasts. Where the target is away, the
/// client's connection ends.
pub(super) fn lay(
    listener: TcpListener,
    target: SocketAddr,
    carry: impl Fn(&TcpStream, &TcpStream) + Send + Sync + 'static,
) {
    let carry = Arc::new(carry);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let carry = Arc::clone(&carry);
            thread::spawn(move || {
                let server = TcpStream::connect(target).ok()?;
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                carry(&client, &server);
                Some(())
            });
        }
    });
}

/// Passes on both directions, each from the one stream to the other until that returns; returns when both have ended.
pub(super) fn both_ways(
    client: &TcpStream,
    server: &TcpStream,
    toward_server: impl FnOnce(&TcpStream, &TcpStream) -> Option<()>,
    toward_client: impl FnOnce(&TcpStream, &TcpStream) -> Option<()> + Send,
) {
    thread::scope(|scope| {
        scope.spawn(|| {
            toward_client(server, client);
            let _ = client.shutdown(Shutdown::Write);
        });
        toward_server(client, server);
        let _ = server.shutdown(Shutdown::Write);
    });
}
