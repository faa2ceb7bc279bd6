//! The organisation's own certificate authority.
