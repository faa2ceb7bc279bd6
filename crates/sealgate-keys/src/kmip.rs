//! KMIP, as far as keys for mail need it: the encoding, the messages, and a client.
