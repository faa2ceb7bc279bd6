-- Where a secret key is in its life (KMIP 1.4 section 3.22): active, deactivated, compromised. One that is not active signs no
-- more, and nothing is encrypted to it; it decrypts what is old.
ALTER TABLE secret_keys ADD COLUMN state TEXT COLLATE "C" NOT NULL DEFAULT 'active';
