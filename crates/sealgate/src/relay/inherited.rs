//! Listening sockets that the service manager opened for us (sd_listen_fds(3)), so that port 25 needs no capability and
//! no connection is refused while the program is restarted.
//!
//! In: the environment and the descriptors of the process. Out: listeners by the names of the `ready` line, which
//! are the names to give them (`FileDescriptorName=`).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{SockRef, Type};

/// The sockets that nobody has asked for yet.
#[derive(Debug)]
pub(crate) struct Inherited {
    sockets: Vec<(String, TcpListener)>,
}

impl Inherited {
    /// Takes over what there is; to be called once in a process.
    ///
    /// # Errors
    /// Where a descriptor is no listening TCP socket, or the environment contradicts itself.
    pub(crate) fn take() -> io::Result<Self> {
        let handed_over = sd_listen_fds::get().map_err(io::Error::other)?;
        let mut sockets = Vec::new();
        for (name, descriptor) in handed_over {
            let name = name.unwrap_or_default();
            let socket = TcpListener::from(descriptor);
            let reference = SockRef::from(&socket);
            let listens = reference.is_listener().unwrap_or(false);
            if !listens || reference.r#type()? != Type::STREAM || socket.local_addr().is_err() {
                let text = format!("the socket `{name}` handed over does not listen for TCP");
                return Err(io::Error::other(text));
            }
            socket.set_nonblocking(true)?;
            sockets.push((name, socket));
        }
        Ok(Self { sockets })
    }

    /// The sockets of one name, which must be at the port that the configuration says.
    ///
    /// # Errors
    /// Where they are at another port, or the configuration has no such entrance: a socket alone must not open one.
    pub(crate) fn named(
        &mut self,
        name: &str,
        configured: Option<SocketAddr>,
    ) -> io::Result<Vec<TcpListener>> {
        let (found, others) =
            std::mem::take(&mut self.sockets).into_iter().partition(|(own, _)| own == name);
        self.sockets = others;
        let mut listeners = Vec::new();
        for (_, socket) in found {
            let address = socket.local_addr()?;
            let Some(configured) = configured else {
                let (table, key) = name.split_once('-').unwrap_or_default();
                let text = format!(
                    "{name}: a socket at {address} was handed over, but the configuration has no `[{table}] {key}`: \
                     add it, or keep the socket closed: `systemctl mask --now sealgate.socket` (only disabled, it is opened \
                     again with sealgate.service, for its Sockets=)"
                );
                return Err(io::Error::other(text));
            };
            if configured.port() != 0 && configured.port() != address.port() {
                let text = format!(
                    "{name}: the configuration says {configured}, the socket handed over is at {address}: make them agree"
                );
                return Err(io::Error::other(text));
            }
            listeners.push(socket);
        }
        Ok(listeners)
    }

    /// # Errors
    /// Where a socket is left that has no meaning here: mail would wait there without end.
    pub(crate) fn finish(self, names: &[&str]) -> io::Result<()> {
        let Some((name, _)) = self.sockets.first() else { return Ok(()) };
        let text = format!(
            "a socket named `{name}` was handed over; FileDescriptorName= must be one of {}",
            names.join(", ")
        );
        Err(io::Error::other(text))
    }
}
