-- MTA-STS policies of other domains while they hold, so that a restart forgets none (RFC 8461). Public, and nobody's key.
-- record_id: the id of the TXT record then; policy: its text (section 3.2); times: seconds of Unix time.
CREATE TABLE mta_sts_policies (
    domain TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    record_id TEXT COLLATE "C" NOT NULL,
    policy BYTEA NOT NULL,
    fetched_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    written_at BIGINT NOT NULL
);
CREATE INDEX mta_sts_policies_written_at ON mta_sts_policies (written_at);
