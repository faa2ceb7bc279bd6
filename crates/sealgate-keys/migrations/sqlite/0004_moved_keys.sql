-- Owners whose keys were moved to a store outside this database, which still answers for them as long as the configuration
-- says `store = "embedded"`. purpose: sign, encrypt; store: kmip, pkcs11.
CREATE TABLE moved_keys (
    owner TEXT NOT NULL,
    purpose TEXT NOT NULL,
    store TEXT NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (owner, purpose)
);
