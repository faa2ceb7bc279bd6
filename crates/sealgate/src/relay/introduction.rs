//! Who the Internet's client is, as the mail server gets to know it: by XCLIENT, or by HAProxy's PROXY header.
//!
//! Either holds for a whole connection, so a [`super::route::Hop`] carries it and only one client's messages share a connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sealgate_core::smtp::client::Identity;

/// What is said at the beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Introduction {
    /// PROXY protocol, version 2, of a connection of our own (LOCAL): a notification has no client.
    Ourselves,
    /// PROXY protocol, version 2, before anything else.
    Proxy {
        /// The Internet's client.
        client: SocketAddr,
        /// Our address, which it connected to.
        server: SocketAddr,
    },
    /// Postfix's XCLIENT, after the hello.
    Xclient(Identity),
}

impl Introduction {
    /// Octets to send before the server's greeting.
    pub(crate) fn header(&self) -> Option<Vec<u8>> {
        match self {
            Self::Ourselves => Some([&SIGNATURE[..], &LOCAL].concat()),
            Self::Proxy { client, server } => Some(proxy_header(*client, *server)),
            Self::Xclient(_) => None,
        }
    }

    /// Whom to introduce once the server has greeted.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Ourselves | Self::Proxy { .. } => None,
            Self::Xclient(identity) => Some(identity),
        }
    }

    /// The client's address.
    pub(crate) fn client(&self) -> IpAddr {
        let address = match self {
            Self::Ourselves => return IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::Proxy { client, .. } => client,
            Self::Xclient(identity) => &identity.address,
        };
        address.ip().to_canonical()
    }
}

/// The PROXY protocol's §2.2. Two addresses of different families are both written as IPv6.
fn proxy_header(client: SocketAddr, server: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(ADDRESS_BYTES_MAX);
    let family = match (client.ip().to_canonical(), server.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            addresses.extend_from_slice(&client.octets());
            addresses.extend_from_slice(&server.octets());
            TCP_OVER_IPV4
        }
        (client, server) => {
            for address in [client, server] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                addresses.extend_from_slice(&address.octets());
            }
            TCP_OVER_IPV6
        }
    };
    addresses.extend_from_slice(&client.port().to_be_bytes());
    addresses.extend_from_slice(&server.port().to_be_bytes());
    let length = u16::try_from(addresses.len()).unwrap_or_default();
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[VERSION_2_PROXY, family]);
    header.extend_from_slice(&length.to_be_bytes());
    header.extend_from_slice(&addresses);
    header
}

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, LOCAL, no family, nothing behind it.
const LOCAL: [u8; 4] = [0x20, 0, 0, 0];
const VERSION_2_PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// Two IPv6 addresses and two ports.
const ADDRESS_BYTES_MAX: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_header_has_both_ends_in_network_order() {
        let header = proxy_header(
            "192.0.2.7:4025".parse().unwrap(),
            "[::ffff:198.51.100.1]:25".parse().unwrap(),
        );
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\x0f\xb9\0\x19";
        assert_eq!(header, expected);
        let six = proxy_header("[2001:db8::7]:1".parse().unwrap(), "192.0.2.1:25".parse().unwrap());
        assert_eq!(&six[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(six.len(), 16 + 36);
        assert_eq!(&six[42..48], [0xff, 0xff, 192, 0, 2, 1]);
        let local = Introduction::Ourselves.header().unwrap();
        assert_eq!(local, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    }
}
