-- Revocation lists, several an issuer: one for each of its keys, for each part of its certificates, and of changes (delta).
-- Which one takes another's place is told by the lists themselves. id: random, the issuer for those from before.
ALTER TABLE crls ADD COLUMN id TEXT COLLATE "C";
UPDATE crls SET id = issuer;
ALTER TABLE crls DROP CONSTRAINT crls_pkey;
ALTER TABLE crls ADD PRIMARY KEY (id);
