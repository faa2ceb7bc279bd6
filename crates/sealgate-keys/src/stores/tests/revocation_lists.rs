//! Revocation lists of one issuer: for its keys, for parts of its certificates, and of changes.

use super::trust::Authority;
use super::*;
use crate::administration::{ListImport, RevocationReason};
use crate::import::crl;

on_both_databases! {
    a_list_that_its_issuer_did_not_sign_is_refused,
    a_list_takes_no_newer_ones_place,
    changes_to_a_list_in_a_file_do_not_pile_up,
    changes_to_a_list_that_is_not_there_take_nobodys_place,
    lists_of_another_scope_take_nobodys_place,
    lists_of_the_version_before_are_kept_and_replaced,
    what_our_own_authority_revokes_is_not_believed,
}

/// An authority that makes lists of several kinds.
struct Lists<'b> {
    authority: Authority<'b>,
    bed: &'b Bed,
}

impl<'b> Lists<'b> {
    fn new(bed: &'b Bed) -> Self {
        let authority = Authority::new(bed);
        // The same name and another key.
        authority.openssl(
            "req -x509 -newkey rsa:2048 -nodes -keyout new.key -subj /CN=ca -days 90 -out new.pem \
             -addext keyUsage=critical,keyCertSign,cRLSign",
        );
        let key = "authorityKeyIdentifier=keyid:always\n";
        let configuration = format!(
            "[ca]\ndefault_ca=x\n[x]\ndatabase=index.txt\ndefault_md=sha256\ncrlnumber=number\n\
             [nothing]\ndatabase=empty.txt\ndefault_md=sha256\ncrlnumber=number\n\
             [base]\n{key}[delta]\n{key}2.5.29.27=critical,DER:020101\n\
             [of10]\n{key}2.5.29.27=critical,DER:02010A\n[of20]\n{key}2.5.29.27=critical,DER:020114\n[part]\n{key}issuingDistributionPoint=critical,@idp\n\
             [idp]\nfullname=URI:http://ca.example/authorities.crl\nonlyCA=TRUE\n"
        );
        std::fs::write(bed.path("lists.cnf"), configuration).unwrap();
        std::fs::write(bed.path("empty.txt"), "").unwrap();
        Self { authority, bed }
    }

    /// A list with this number and date, with these extensions besides, signed with this key.
    fn list(&self, number: u8, date: &str, key: &str, more: &str) -> Vec<u8> {
        std::fs::write(self.bed.path("number"), format!("{number:02x}\n")).unwrap();
        self.authority.openssl(&format!(
            "ca -gencrl -config lists.cnf -keyfile {key}.key -cert {key}.pem -crl_lastupdate \
             {date}000000Z -crl_nextupdate 490101000000Z -out list.pem {more}"
        ));
        self.authority.openssl("crl -in list.pem -outform DER -out list.crl");
        std::fs::read(self.bed.path("list.crl")).unwrap()
    }

    async fn judge(&self, stores: &Stores) -> Trust {
        let (leaf, now) = (self.authority.read("leaf.pem"), Timestamp(unix_now()));
        stores.trust().await.unwrap().judge(&leaf, &[], Purpose::Sign, now)
    }
}

async fn lists_of_another_scope_take_nobodys_place(bed: Bed) {
    let stores = bed.open().await;
    let lists = Lists::new(&bed);
    let administration = stores.administration();
    administration.import_anchor(&lists.authority.read("ca.pem")).await.unwrap();
    lists.authority.revoke();
    let base = lists.list(1, "250101", "ca", "-crlexts base");
    assert_eq!(administration.import_crl(&base).await, Ok(ListImport::Taken));
    let revoked = Trust::Revoked { key_compromise: true };
    assert_eq!(lists.judge(&stores).await, revoked);
    for (number, extensions, key, imported) in [
        (2, "delta", "ca", ListImport::Taken),
        (3, "part", "ca", ListImport::Taken),
        (4, "base", "new", ListImport::TakenUnchecked),
    ] {
        let more = format!("-name nothing -crlexts {extensions}");
        let list = lists.list(number, "250201", key, &more);
        assert_eq!(administration.import_crl(&list).await, Ok(imported), "{extensions}");
        assert_eq!(lists.judge(&stores).await, revoked, "{extensions} {key}");
        assert_eq!(administration.import_crl(&list).await, Ok(ListImport::Held));
    }
    let held = administration.revocation_lists().await.unwrap();
    let shown: Vec<_> = held.iter().map(|list| list.scope.covers()).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert_eq!(shown[0], "all");
    assert!(shown.contains(&"changes (delta), all".to_owned()), "{shown:?}");
    let part = "authorities only, http://ca.example/authorities.crl".to_owned();
    assert!(shown.contains(&part), "{shown:?}");
    assert_eq!(held[0].number.as_deref(), Some("0x01"));
    // Each can be named. Without the complete list nothing is known, which is not good.
    let sha256 = held[0].sha256.to_uppercase();
    assert_eq!(administration.remove_revocation_lists(&sha256).await, Ok(1));
    assert_eq!(lists.judge(&stores).await, Trust::RevocationUnknown);
    assert!(administration.remove_revocation_lists(&sha256).await.is_err());
    assert_eq!(administration.remove_revocation_lists("CN=ca").await, Ok(3));
    assert_eq!(lists.judge(&stores).await, Trust::Trusted);
}

async fn changes_to_a_list_that_is_not_there_take_nobodys_place(bed: Bed) {
    let stores = bed.open().await;
    let lists = Lists::new(&bed);
    let administration = stores.administration();
    administration.import_anchor(&lists.authority.read("ca.pem")).await.unwrap();
    let import = async |number, date, more: &str| {
        let list = lists.list(number, date, "ca", more);
        administration.import_crl(&list).await.unwrap()
    };
    let numbers = async || {
        let held = administration.revocation_lists().await.unwrap();
        held.into_iter().filter_map(|list| list.number).collect::<Vec<_>>()
    };
    assert_eq!(import(10, "250110", "-crlexts base").await, ListImport::Taken);
    lists.authority.revoke();
    assert_eq!(import(11, "250111", "-crlexts of10").await, ListImport::Taken);
    let revoked = Trust::Revoked { key_compromise: true };
    assert_eq!(lists.judge(&stores).await, revoked);
    // What list 20 says is not known here.
    for (number, date) in [(21, "250121"), (22, "250122")] {
        let more = "-name nothing -crlexts of20";
        assert_eq!(import(number, date, more).await, ListImport::Taken);
        assert_eq!(lists.judge(&stores).await, revoked, "{number}");
    }
    assert_eq!(numbers().await, ["0x0a", "0x0b", "0x16"], "22 says what 21 did");
    assert_eq!(import(11, "250111", "-crlexts of10").await, ListImport::Held);
    assert_eq!(
        import(12, "250112", "-crlexts of10").await,
        ListImport::Taken,
        "22 does not say it"
    );
    assert_eq!(numbers().await, ["0x0a", "0x0c", "0x16"]);
    assert_eq!(import(20, "250120", "-crlexts base").await, ListImport::Taken);
    assert_eq!(import(23, "250123", "-name nothing -crlexts of20").await, ListImport::Taken);
    assert_eq!(numbers().await, ["0x14", "0x17"], "20 says the rest");
    assert_eq!(lists.judge(&stores).await, revoked);
    let older = import(12, "250112", "-crlexts of10").await;
    assert!(matches!(older, ListImport::Older(_)), "{older:?}");
}

async fn changes_to_a_list_in_a_file_do_not_pile_up(bed: Bed) {
    let (unreadable, file) = (bed.path("unreadable.crl"), bed.path("complete.crl"));
    let config = StoresConfig { crls: vec![unreadable, file.clone()], ..bed.config.clone() };
    let stores = Stores::open(&config).await.unwrap();
    let lists = Lists::new(&bed);
    let administration = stores.administration();
    administration.import_anchor(&lists.authority.read("ca.pem")).await.unwrap();
    let import = async |number, date, more: &str| {
        let list = lists.list(number, date, "ca", more);
        assert_eq!(administration.import_crl(&list).await, Ok(ListImport::Taken), "{number}");
    };
    let numbers = async || {
        let stored = crate::trust_source::stored_crls(&stores.database).await.unwrap();
        let list = |der: &Vec<u8>| crl::parse(der)?.number.map(|number| number.to_string());
        stored.iter().filter_map(list).collect::<Vec<_>>()
    };
    for (number, date, key, more, expected) in [
        (11, "250111", "ca", "-crlexts of10", &["0x0b"][..]),
        // What a list says that somebody else signed replaces nothing.
        (21, "250121", "new", "-crlexts of20", &["0x0b", "0x15"]),
        (22, "250122", "ca", "-crlexts of20", &["0x16"]),
    ] {
        let complete = lists.list(number / 10 * 10, "250120", key, "-crlexts base");
        std::fs::write(&file, complete).unwrap();
        import(number, date, more).await;
        assert_eq!(numbers().await, expected, "{number}");
    }
}

async fn a_list_takes_no_newer_ones_place(bed: Bed) {
    let stores = bed.open().await;
    let lists = Lists::new(&bed);
    let administration = stores.administration();
    administration.import_anchor(&lists.authority.read("ca.pem")).await.unwrap();
    let import = async |number, date| {
        let list = lists.list(number, date, "ca", "-crlexts base");
        administration.import_crl(&list).await.unwrap()
    };
    assert_eq!(import(5, "250101").await, ListImport::Taken);
    let held = administration.revocation_lists().await.unwrap().remove(0).sha256;
    assert_eq!(import(4, "250201").await, ListImport::Older(held.clone()));
    assert_eq!(import(5, "241201").await, ListImport::Older(held));
    assert_eq!(import(5, "250101").await, ListImport::Held);
    // By an authority whose clock was ahead before.
    assert_eq!(import(6, "241201").await, ListImport::Taken);
    assert_eq!(import(200, "250201").await, ListImport::Taken);
    let held = administration.revocation_lists().await.unwrap();
    assert_eq!((held.len(), held[0].number.as_deref()), (1, Some("0xc8")));
}

async fn a_list_that_its_issuer_did_not_sign_is_refused(bed: Bed) {
    let stores = bed.open().await;
    let lists = Lists::new(&bed);
    let administration = stores.administration();
    // None of these says which key it is of.
    let forged = lists.list(9, "250201", "new", "");
    let genuine = lists.list(1, "250101", "ca", "");
    assert_eq!(administration.import_crl(&forged).await, Ok(ListImport::TakenUnchecked));
    administration.import_anchor(&lists.authority.read("ca.pem")).await.unwrap();
    assert_eq!(lists.judge(&stores).await, Trust::RevocationUnknown);
    let refused = administration.import_crl(&forged).await.unwrap_err().to_string();
    assert!(refused.contains("not signed by CN=ca"), "{refused}");
    // What came while nobody could tell keeps the genuine one out no more.
    assert_eq!(administration.import_crl(&genuine).await, Ok(ListImport::Taken));
    assert_eq!(administration.revocation_lists().await.unwrap().len(), 1);
    assert_eq!(lists.judge(&stores).await, Trust::Trusted);
    assert!(administration.import_crl(b"hello").await.is_err());
}

async fn lists_of_the_version_before_are_kept_and_replaced(bed: Bed) {
    let lists = Lists::new(&bed);
    let (older, newer) = (lists.list(1, "250101", "ca", ""), lists.list(2, "250201", "ca", ""));
    let stores = bed.open().await;
    let create = match &bed.config.database {
        DatabaseUrl::Postgres(_) => {
            "CREATE TABLE crls (issuer TEXT COLLATE \"C\" NOT NULL PRIMARY KEY, crl BYTEA NOT NULL, \
             this_update BIGINT NOT NULL)"
        }
        DatabaseUrl::Sqlite(_) => {
            "CREATE TABLE crls (issuer TEXT NOT NULL PRIMARY KEY, crl BLOB NOT NULL, \
             this_update BIGINT NOT NULL)"
        }
    };
    let insert = "INSERT INTO crls (issuer, crl, this_update) VALUES ('CN=ca', $1, 0)";
    for statement in [
        Statement::new("DROP TABLE crls"),
        Statement::new(create),
        // What came later is made anew.
        Statement::new("DROP TABLE mta_sts_policies"),
        Statement::new("DELETE FROM _sqlx_migrations WHERE version >= 5"),
        Statement::new(insert).bind(&older),
    ] {
        stores.database.execute(statement).await.unwrap();
    }
    stores.close().await;
    let stores = bed.open().await;
    let administration = stores.administration();
    administration.import_anchor(&lists.authority.read("ca.pem")).await.unwrap();
    assert_eq!(administration.import_crl(&older).await, Ok(ListImport::Held));
    assert_eq!(administration.import_crl(&newer).await, Ok(ListImport::Taken));
    let held = administration.revocation_lists().await.unwrap();
    assert_eq!((held.len(), held[0].number.as_deref()), (1, Some("0x02")));
}

/// And what its successor issues is, though both are of one name.
async fn what_our_own_authority_revokes_is_not_believed(bed: Bed) {
    let stores = bed.open().await;
    let administration = stores.administration();
    let made = |owner: &'static str| async move {
        let owner: Owner = owner.parse().unwrap();
        administration.generate_secret_keys(&owner, Algorithm::P256).await.unwrap().remove(0)
    };
    let judge = |certificate: Arc<Certificate>| {
        let (stores, now) = (&stores, Timestamp(unix_now()));
        async move { stores.trust().await.unwrap().judge(&certificate, &[], Purpose::Sign, now) }
    };
    let (alice, bob) = (made("alice@nec.example").await, made("bob@nec.example").await);
    let superseded = RevocationReason::Superseded;
    assert_eq!(administration.revoke(std::slice::from_ref(&alice), superseded).await, Ok(1));
    assert_eq!(judge(alice.clone()).await, Trust::Revoked { key_compromise: false });
    assert_eq!(judge(bob.clone()).await, Trust::Trusted);
    administration.renew_authority(&"nec.example".parse_domain()).await.unwrap();
    let carol = made("carol@nec.example").await;
    assert_eq!(judge(carol.clone()).await, Trust::Trusted);
    let both = [alice.clone(), carol.clone()];
    assert_eq!(administration.revoke(&both, RevocationReason::KeyCompromise).await, Ok(2));
    for one in both {
        assert_eq!(judge(one).await, Trust::Revoked { key_compromise: true });
    }
    assert_eq!(judge(bob).await, Trust::Trusted);
}
