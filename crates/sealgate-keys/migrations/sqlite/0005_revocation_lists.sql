-- Revocation lists, several an issuer: one for each of its keys, for each part of its certificates, and of changes (delta).
-- Which one takes another's place is told by the lists themselves. id: random, the issuer for those from before.
CREATE TABLE crls_of_several_kinds (
    id TEXT NOT NULL PRIMARY KEY,
    issuer TEXT NOT NULL,
    crl BLOB NOT NULL,
    this_update BIGINT NOT NULL
);
INSERT INTO crls_of_several_kinds (id, issuer, crl, this_update)
SELECT issuer, issuer, crl, this_update FROM crls;
DROP TABLE crls;
ALTER TABLE crls_of_several_kinds RENAME TO crls;
