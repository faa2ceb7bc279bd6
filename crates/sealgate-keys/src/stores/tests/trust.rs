//! Anchors, which come and go, and revocation lists in files.

use super::*;

on_both_databases! {
    anchors_come_and_go,
}

async fn anchors_come_and_go(bed: Bed) {
    let stores = bed.open().await;
    let administration = stores.administration();
    let (root, leaf) = (certificate("certs/rsa-ca-root.crt"), certificate("certs/bob.sign.crt"));
    let now = Timestamp(unix_now());
    let judge = async || {
        let trust = stores.trust().await.unwrap();
        trust.judge(&leaf, &[], Purpose::Sign, now)
    };
    assert_eq!(judge().await, Trust::Untrusted);
    assert!(administration.import_anchor(&leaf).await.is_err());
    administration.import_anchor(&root).await.unwrap();
    assert_eq!(administration.anchors().await.unwrap().len(), 2);
    assert_eq!(judge().await, Trust::Trusted);
    let sha256 = root.fingerprint().to_string();
    administration.remove_anchor(&sha256).await.unwrap();
    assert_eq!(judge().await, Trust::Untrusted);
    assert!(administration.remove_anchor(&sha256).await.is_err());
}

#[tokio::test]
async fn our_own_authority_is_called_that_where_somebody_would_remove_it() {
    let (_bed, stores) = Bed::new().await;
    let administration = stores.administration();
    let own = administration.authority_certificate().await.unwrap();
    let why = administration.remove_anchor(&own.fingerprint().to_string()).await.unwrap_err();
    assert!(why.to_string().contains("our own authority"), "{why}");
}

/// REQUIREMENTS G1: version 1 has no extension that could say that it is one.
#[tokio::test]
async fn a_root_of_version_1_is_an_anchor() {
    let (bed, stores) = Bed::new().await;
    let authority = Authority::new(&bed);
    authority.openssl("req -new -newkey rsa:2048 -nodes -keyout v1.key -subj /CN=v1 -out v1.csr");
    authority.openssl("x509 -req -in v1.csr -signkey v1.key -days 90 -out v1.pem");
    authority.openssl("req -new -newkey rsa:2048 -nodes -keyout p.key -subj /CN=p -out p.csr");
    std::fs::write(bed.path("san"), "subjectAltName=email:eve@abc.example\n").unwrap();
    authority.openssl(
        "x509 -req -in p.csr -CA v1.pem -CAkey v1.key -set_serial 2 -days 60 -extfile san -out p.pem",
    );
    let (root, person) = (authority.read("v1.pem"), authority.read("p.pem"));
    let administration = stores.administration();
    administration.import_anchor(&root).await.unwrap();
    let trust = stores.trust().await.unwrap();
    let now = Timestamp(unix_now());
    assert_eq!(trust.judge(&person, &[], Purpose::Sign, now), Trust::Trusted);
    // Of version 1 and issued by somebody is no root.
    authority
        .openssl("x509 -req -in p.csr -CA v1.pem -CAkey v1.key -set_serial 3 -days 60 -out q.pem");
    assert!(administration.import_anchor(&authority.read("q.pem")).await.is_err());
}

#[tokio::test]
async fn revocation_lists_are_read_and_bad_ones_named() {
    let (bed, _stores) = Bed::new().await;
    let path = bed.path("bad.crl");
    let config = StoresConfig { crls: vec![path.clone()], ..bed.config.clone() };
    let stores = Stores::open(&config).await.unwrap();
    let missing = stores.trust().await.unwrap_err().to_string();
    assert!(missing.contains("bad.crl"), "{missing}");
    std::fs::write(&path, b"hello").unwrap();
    let bad = stores.trust().await.unwrap_err().to_string();
    assert!(bad.contains("not a certificate revocation list"), "{bad}");
}

/// An authority whose certificate for eve@abc.example can be revoked.
pub(super) struct Authority<'b> {
    bed: &'b Bed,
}

impl<'b> Authority<'b> {
    pub(super) fn new(bed: &'b Bed) -> Self {
        std::fs::write(
            bed.path("ca.cnf"),
            "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ndefault_md=sha256\npolicy=p\n\
             default_crl_days=30\ncrlnumber=number\nserial=serial\nnew_certs_dir=.\n\
             [p]\ncommonName=supplied\n[leaf]\nbasicConstraints=CA:FALSE\n\
             keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=emailProtection\n\
             subjectAltName=email:eve@abc.example\n",
        )
        .unwrap();
        for (name, text) in [("index.txt", ""), ("number", "01\n"), ("serial", "01\n")] {
            std::fs::write(bed.path(name), text).unwrap();
        }
        let authority = Self { bed };
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 90 -out ca.pem \
             -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        authority.openssl(
            "req -new -newkey rsa:2048 -nodes -keyout leaf.key -subj /CN=eve -out leaf.csr",
        );
        authority.openssl(
            "ca -batch -config ca.cnf -keyfile ca.key -cert ca.pem -in leaf.csr -out leaf.pem \
             -days 60 -extensions leaf -notext",
        );
        authority.openssl(LIST);
        authority
    }

    pub(super) fn openssl(&self, arguments: &str) {
        let run = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(self.bed.directory.path())
            .output()
            .expect("this test needs the openssl program");
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "openssl {arguments}: {error}");
    }

    /// Says so in its list.
    pub(super) fn revoke(&self) {
        self.openssl(
            "ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke leaf.pem \
             -crl_reason keyCompromise",
        );
        self.openssl(LIST);
    }

    pub(super) fn read(&self, name: &str) -> Arc<Certificate> {
        let bytes = std::fs::read(self.bed.path(name)).unwrap();
        Arc::clone(&Material::read(&bytes, None).unwrap().certificates[0])
    }

    /// Gives eve her key for the certificate.
    async fn import_secret_key(&self, stores: &Stores) {
        let mut material = Material::default();
        for name in ["leaf.key", "leaf.pem"] {
            let bytes = std::fs::read(self.bed.path(name)).unwrap();
            material.append(Material::read(&bytes, None).unwrap());
        }
        let (eve, keys) = (owner("eve@abc.example"), material.into_keys().unwrap());
        stores.administration().import_secret_keys(&eve, keys).await.unwrap();
    }

    /// Stores that trust it and read its list.
    pub(super) async fn trusted(&self) -> Stores {
        let config =
            StoresConfig { crls: vec![self.bed.path("ca.crl")], ..self.bed.config.clone() };
        let stores = Stores::open(&config).await.unwrap();
        stores.administration().import_anchor(&self.read("ca.pem")).await.unwrap();
        stores
    }
}

const LIST: &str = "ca -gencrl -config ca.cnf -keyfile ca.key -cert ca.pem -out ca.crl";

#[tokio::test]
async fn a_revoked_certificate_is_noticed_when_the_file_changes_and_stays_so_when_it_breaks() {
    let (bed, _stores) = Bed::new().await;
    let authority = Authority::new(&bed);
    let (leaf, crl) = (authority.read("leaf.pem"), bed.path("ca.crl"));
    let stores = authority.trusted().await;
    let judge = async || {
        let now = Timestamp(unix_now());
        stores.trust().await.unwrap().judge(&leaf, &[], Purpose::Sign, now)
    };
    assert_eq!(judge().await, Trust::Trusted);
    let before = std::fs::read(&crl).unwrap();
    authority.revoke();
    assert_eq!(judge().await, Trust::Revoked { key_compromise: true });
    // Of two lists in one file, the second cut off.
    let after = std::fs::read(&crl).unwrap();
    let cut = after.len() - 40;
    std::fs::write(&crl, [&before, &after[..cut]].concat()).unwrap();
    assert_eq!(judge().await, Trust::Revoked { key_compromise: true });
    std::fs::write(&crl, "half a fi").unwrap();
    assert_eq!(judge().await, Trust::Revoked { key_compromise: true });
    std::fs::remove_file(&crl).unwrap();
    assert_eq!(judge().await, Trust::Revoked { key_compromise: true });
}

/// What is remembered as of use is asked for anew, and then is remembered as of none.
#[tokio::test]
async fn a_remembered_certificate_that_is_revoked_is_looked_up_again() {
    let (bed, _stores) = Bed::new().await;
    let authority = Authority::new(&bed);
    let stores = authority.trusted().await;
    let (eve, leaf) = (owner("eve@abc.example"), authority.read("leaf.pem"));
    stores.administration().import_public_key(&eve, &leaf, &[]).await.unwrap();
    let query = KeyQuery::Public(address("eve@abc.example"));
    let is_of_use = async || {
        assert_eq!(public(&stores, "eve@abc.example").await.len(), 1);
        let generation = stores.watch.generation.load(Ordering::Acquire);
        stores.cache.find(generation, &query).unwrap().usable
    };
    assert!(is_of_use().await && is_of_use().await);
    authority.revoke();
    assert!(!is_of_use().await);
}

/// No mailbox's own key signs then, and what the domain signs with is not here.
#[tokio::test]
async fn mail_of_a_mailbox_whose_key_is_revoked_waits_while_its_domains_is_elsewhere() {
    let (bed, _stores) = Bed::new().await;
    let authority = Authority::new(&bed);
    let stores = authority.trusted().await;
    authority.import_secret_key(&stores).await;
    let mark = "INSERT INTO moved_keys (owner, purpose, store, moved_at) \
                VALUES ('@abc.example', 'sign', 'pkcs11', 0)";
    stores.database.execute(Statement::new(mark)).await.unwrap();
    let query = || KeyQuery::Signing(address("eve@abc.example"));
    assert_eq!(own(&stores, query()).await.unwrap().len(), 1, "her own signs");
    authority.revoke();
    let waits = own(&stores, query()).await.unwrap_err().to_string();
    assert!(waits.contains("store = \"pkcs11\""), "{waits}");
}

/// What can sign nothing is remembered as such, and not asked for with every mail.
#[tokio::test]
async fn a_revoked_signing_key_is_remembered_as_of_no_use() {
    let (bed, _stores) = Bed::new().await;
    let authority = Authority::new(&bed);
    let stores = authority.trusted().await;
    authority.import_secret_key(&stores).await;
    let query = KeyQuery::Signing(address("eve@abc.example"));
    let is_of_use = async || {
        assert_eq!(signing(&stores, "eve@abc.example").await.len(), 1);
        let generation = stores.watch.generation.load(Ordering::Acquire);
        stores.cache.find(generation, &query).unwrap().usable
    };
    assert!(is_of_use().await && is_of_use().await);
    authority.revoke();
    assert!(!is_of_use().await);
}
