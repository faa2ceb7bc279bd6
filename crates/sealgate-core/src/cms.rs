//! Cryptographic Message Syntax (RFC 5652, 5083, 5084): bytes to structures and back. The only importer of the CMS crates; knows no MIME.
