//! SMTP (RFC 5321) and LMTP (RFC 2033), both sides, bytes in and events out; no sockets, no cryptography.
