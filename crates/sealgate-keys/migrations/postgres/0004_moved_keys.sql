-- Owners whose keys were moved to a store outside this database, which still answers for them as long as the configuration
-- says `store = "embedded"`. purpose: sign, encrypt; store: kmip, pkcs11.
CREATE TABLE moved_keys (
    owner TEXT COLLATE "C" NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    store TEXT COLLATE "C" NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (owner, purpose)
);
