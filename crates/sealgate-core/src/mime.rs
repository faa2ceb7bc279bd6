//! MIME (RFC 2045, 2046, 5322), byte-exact and bounded: split, header, canonical, write.
