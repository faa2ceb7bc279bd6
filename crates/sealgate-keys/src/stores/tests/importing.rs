//! Secret keys from files: what is held already, and what is new of it.

use super::*;

on_both_databases! {
    a_chain_is_corrected_by_another_import,
    a_file_with_one_known_key_brings_the_others,
}

const ALICE: &str = "alice@smime.example";

/// The key of Alice's that signs, with what else is in these files.
fn material(files: &[&str]) -> Material {
    let mut material = Material::read(&fixture("keys/alice.sign.key"), None).unwrap();
    for name in files {
        material.append(Material::read(&fixture(name), None).unwrap());
    }
    material
}

async fn import(stores: &Stores, material: Material) -> Result<usize, StoreError> {
    let keys = material.into_keys().unwrap();
    let imported = stores.administration().import_secret_keys(&owner(ALICE), keys).await;
    imported.map(|certificates| certificates.len())
}

async fn a_chain_is_corrected_by_another_import(bed: Bed) {
    let stores = bed.open().await;
    let leaf = "certs/alice.sign.crt";
    let chain = async || signing(&stores, ALICE).await[0].chain.len();
    assert_eq!(import(&stores, material(&[leaf])).await, Ok(1));
    assert_eq!(chain().await, 0);
    let whole = [leaf, "certs/rsa-ca-cross.crt"];
    assert_eq!(import(&stores, material(&whole)).await, Ok(1));
    assert_eq!(chain().await, 1);
    // Nothing new; and a file without a chain takes none away.
    for files in [&whole[..], &[leaf]] {
        let refused = import(&stores, material(files)).await.unwrap_err();
        assert!(matches!(refused, StoreError::Exists(_)), "{refused}");
    }
    assert_eq!(chain().await, 1);
    assert_eq!(signing(&stores, ALICE).await.len(), 1);
}

async fn a_file_with_one_known_key_brings_the_others(bed: Bed) {
    let stores = bed.open().await;
    import(&stores, material(&["certs/alice.sign.crt"])).await.unwrap();
    assert!(decryption(&stores, ALICE).await.is_empty());
    let both = || Material::read(&fixture("p12/alice.p12"), Some("alice")).unwrap();
    assert_eq!(import(&stores, both()).await, Ok(2));
    assert_eq!(decryption(&stores, ALICE).await.len(), 1);
    assert_eq!(signing(&stores, ALICE).await.len(), 1);
    assert!(matches!(import(&stores, both()).await, Err(StoreError::Exists(_))));
}
