-- The embedded key stores; the tables of migrations/sqlite in the words of PostgreSQL. Collation "C" orders by bytes, as
-- SQLite does.

-- Small facts about this database: what tells the right master key from a wrong one.
CREATE TABLE facts (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

-- The organisation's own authority: its wrapped key and its certificate. The newest row is the one in use.
CREATE TABLE own_authorities (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    wrapped BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- Our secret keys. owner: an address in lower case, or @domain; purpose: sign, encrypt, both.
-- chain: DER certificates end to end.
CREATE TABLE secret_keys (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    purpose TEXT COLLATE "C" NOT NULL,
    wrapped BYTEA NOT NULL,
    certificate BYTEA NOT NULL,
    chain BYTEA NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    UNIQUE (owner, sha256)
);

-- Correspondents' certificates. state: pinned (imported or accepted), candidate (learned, not used for encryption).
CREATE TABLE public_keys (
    owner TEXT COLLATE "C" NOT NULL,
    sha256 TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    certificate BYTEA NOT NULL,
    intermediates BYTEA NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (owner, sha256)
);

-- What a correspondent's software reads, and when it said so.
CREATE TABLE capabilities (
    owner TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    flags BIGINT NOT NULL,
    signed_at BIGINT NOT NULL
);

-- Authorities. role: anchor (trusted by the administrator) or intermediate (helps to build paths).
CREATE TABLE authorities (
    sha256 TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    role TEXT COLLATE "C" NOT NULL,
    certificate BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

-- Revocation lists, one an issuer.
CREATE TABLE crls (
    issuer TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    crl BYTEA NOT NULL,
    this_update BIGINT NOT NULL
);

-- Counts changes that answers depend on, so that a running relay drops what it has cached.
CREATE TABLE changes (
    id BIGINT NOT NULL PRIMARY KEY,
    counter BIGINT NOT NULL
);
INSERT INTO changes (id, counter) VALUES (1, 0);
