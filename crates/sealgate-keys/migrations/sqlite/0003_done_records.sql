-- Who has a message already, of those whose other recipients do not, or whose sender did not hear of it (REQUIREMENTS O10).
-- Hashes and times only. message: SHA-256 over sender and content; recipients: 32 hexadecimal digits each, end to end.
CREATE TABLE done_records (
    message BLOB NOT NULL PRIMARY KEY,
    recipients TEXT NOT NULL,
    written_at BIGINT NOT NULL
);
CREATE INDEX done_records_written_at ON done_records (written_at);
