//! Tokens that are away, hang, have no session left, or are left for good.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sealgate_core::keys::{KeyError, KeyTransport};
use sealgate_keys::StoreError;
use sealgate_keys::secret_key_store::pkcs11::{Pkcs11Config, Token, end_modules};
use sealgate_keys::secret_key_store::{RemoteKey, RemoteStore};
use sealgate_testkit::process;
use sealgate_testkit::softhsm::Remoting;

use crate::bed::{Bed, P256, RSA, SIGN_AND_ENCRYPT, inside, new_key, threads_of_tokens};
use crate::uses::{
    CONTENT_KEY, ECDSA_SHA256, MESSAGE, RETURN_PATIENCE, RSA_SHA256, decrypts_rsa, encrypted_pkcs1,
    only, signs, works_within,
};

#[test]
fn a_token_pulled_and_put_back_works_again_with_the_same_handle() {
    inside("away::a_token_pulled_and_put_back_works_again_with_the_same_handle", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let token = Token::open(bed.config()).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        signs(&key);
        bed.token.set_present(false);
        // "Away", which lets mail wait, and never "no".
        let away = key.secret.sign(RSA_SHA256, MESSAGE);
        assert!(matches!(away, Err(KeyError::Unavailable(_))), "{away:?}");
        assert!(!key.secret.is_gone());
        for _ in 0..3 {
            let found = token.find("r@nec.example");
            assert!(matches!(found, Err(StoreError::Unavailable { .. })), "{found:?}");
        }
        bed.token.set_present(true);
        assert!(works_within(&key, RETURN_PATIENCE));
        assert_eq!(token.find("r@nec.example").unwrap().len(), 1);
    });
}

/// As in a unit with ProtectSystem=strict: SoftHSM signs and decrypts there, and says no more what it is.
#[test]
fn a_token_that_cannot_write_is_ready_as_long_as_it_signs() {
    inside("away::a_token_that_cannot_write_is_ready_as_long_as_it_signs", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, "r@nec.example", "01");
        let protected = bed.token.write_protected();
        let token = Token::open(bed.config()).unwrap();
        let key = only(token.find("r@nec.example").unwrap());
        for _ in 0..3 {
            signs(&key);
            assert_eq!(token.ping(), Ok(()));
            let line = token.check().unwrap();
            assert!(line.ends_with("model SoftHSM v2, secret keys: 1"), "{line}");
        }
        decrypts_rsa(&key);
        drop(protected);
        // And not any longer.
        bed.token.set_present(false);
        assert!(matches!(token.ping(), Err(StoreError::Unavailable { .. })));
        bed.token.set_present(true);
        assert!(works_within(&key, RETURN_PATIENCE));
        assert_eq!(token.ping(), Ok(()));
    });
}

/// A token at the other end of a socket, and the one key in it.
fn rsa_key_behind_a_socket(bed: &Bed) -> (Remoting, Token, RemoteKey) {
    let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
    bed.import(&person, "r@nec.example", "01");
    let (remoting, token) = bed.open_behind_a_socket();
    let key = only(token.find("r@nec.example").unwrap());
    (remoting, token, key)
}

#[test]
fn a_token_whose_last_key_was_removed_has_none() {
    inside("away::a_token_whose_last_key_was_removed_has_none", |bed| {
        let token = Token::open(bed.config()).unwrap();
        assert!(token.find("r@nec.example").unwrap().is_empty(), "an empty token has no key");
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        token.insert(&[new_key(&person, &person)]).unwrap();
        assert_eq!(token.find("r@nec.example").unwrap().len(), 1);
        assert_eq!(token.remove("r@nec.example"), Ok(1));
        // It looks as one that was pulled, until the module was started anew.
        let has_none = || token.find("r@nec.example").is_ok_and(|found| found.is_empty());
        assert!(process::holds_within(RETURN_PATIENCE, has_none));
        assert!(token.list().unwrap().is_empty());
    });
}

#[test]
fn a_token_behind_a_socket_that_breaks_comes_back_without_a_restart() {
    inside("away::a_token_behind_a_socket_that_breaks_comes_back_without_a_restart", |bed| {
        let (mut remoting, token, key) = rsa_key_behind_a_socket(bed);
        signs(&key);
        decrypts_rsa(&key);
        for round in 0..2 {
            remoting.kill();
            let started = Instant::now();
            let result = key.secret.sign(RSA_SHA256, MESSAGE);
            assert!(matches!(result, Err(KeyError::Unavailable(_))), "{round}: {result:?}");
            let encrypted_key = encrypted_pkcs1(&key.certificate);
            let request = KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key };
            let result = key.secret.unwrap(&request);
            assert!(matches!(result, Err(KeyError::Unavailable(_))), "{round}: {result:?}");
            let found = token.find("r@nec.example");
            assert!(matches!(found, Err(StoreError::Unavailable { .. })), "{round}: {found:?}");
            assert!(started.elapsed() < Duration::from_secs(10), "answers while away are quick");
            remoting.start();
            assert!(works_within(&key, RETURN_PATIENCE), "{round}");
            assert_eq!(token.find("r@nec.example").unwrap().len(), 1);
        }
    });
}

#[test]
fn a_token_that_hangs_holds_nobody_for_long() {
    inside("away::a_token_that_hangs_holds_nobody_for_long", |bed| {
        let (remoting, _token, key) = rsa_key_behind_a_socket(bed);
        signs(&key);
        remoting.signal("STOP");
        let started = Instant::now();
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| {
                    let result = key.secret.sign(RSA_SHA256, MESSAGE);
                    assert!(matches!(result, Err(KeyError::Unavailable(_))), "{result:?}");
                });
            }
        });
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        // They hang, so that what is counted lasts; one look may miss some, because threads above are just ending.
        let mut counted = 0;
        let is_full = process::holds_within(RETURN_PATIENCE, || {
            counted = threads_of_tokens();
            assert!(counted <= 32, "more threads than sessions: {counted}");
            counted == 32
        });
        assert!(is_full, "fewer threads than sessions: {counted}");
        remoting.signal("CONT");
        assert!(works_within(&key, RETURN_PATIENCE));
    });
}

/// A module has destructors of its own that run when the process ends: a thread inside it then breaks the process.
#[test]
fn nobody_is_inside_a_module_once_it_was_ended() {
    inside("away::nobody_is_inside_a_module_once_it_was_ended", |bed| {
        let person = bed.person("rsa@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, &person.address, "01");
        let config = Pkcs11Config { module: bed.spy(), ..bed.config() };
        let token = Token::open(config).unwrap();
        let key = only(token.find(&person.address).unwrap());
        let (signed, begun) = (AtomicUsize::new(0), Instant::now());
        thread::scope(|scope| {
            let signing: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        while begun.elapsed() < Duration::from_secs(30) {
                            if let Err(error) = key.secret.sign(RSA_SHA256, MESSAGE) {
                                return Some(error);
                            }
                            signed.fetch_add(1, Ordering::SeqCst);
                        }
                        None
                    })
                })
                .collect();
            process::await_that("signatures", || signed.load(Ordering::SeqCst) > 20);
            assert!(end_modules());
            // Joined threads may be in the list of the kernel a moment longer.
            process::await_that("no threads", || threads_of_tokens() == 0);
            assert_eq!(bed.calls("C_Finalize"), 1, "the module has to clear up itself");
            // Each of them may have come out and not have counted yet.
            let ended = signed.load(Ordering::SeqCst) + signing.len();
            for thread in signing {
                assert!(matches!(thread.join().unwrap(), Some(KeyError::Unavailable(_))));
            }
            assert!(signed.load(Ordering::SeqCst) <= ended);
        });
        assert!(matches!(token.list(), Err(StoreError::Unavailable { .. })), "and stays ended");
    });
}

#[test]
fn a_module_that_hangs_keeps_no_process_from_its_end() {
    inside("away::a_module_that_hangs_keeps_no_process_from_its_end", |bed| {
        let (remoting, _token, key) = rsa_key_behind_a_socket(bed);
        remoting.signal("STOP");
        let result = key.secret.sign(RSA_SHA256, MESSAGE);
        assert!(matches!(result, Err(KeyError::Unavailable(_))), "{result:?}");
        let begun = Instant::now();
        assert!(!end_modules(), "somebody is inside");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        remoting.signal("CONT");
        process::await_that("the call comes out", end_modules);
    });
}

/// A device's own trouble has the names that some tokens give to a bad padding, too.
#[test]
fn a_trouble_of_the_moment_costs_no_mail() {
    inside("away::a_trouble_of_the_moment_costs_no_mail", |bed| {
        let person = bed.person("r@nec.example", RSA, SIGN_AND_ENCRYPT);
        bed.import(&person, &person.address, "01");
        let config = Pkcs11Config { module: bed.troubled("x..xxx"), ..bed.config() };
        let token = Token::open(config).unwrap();
        let key = only(token.find(&person.address).unwrap());
        let encrypted_key = encrypted_pkcs1(&key.certificate);
        let unwrap =
            || key.secret.unwrap(&KeyTransport::RsaPkcs1 { encrypted_key: &encrypted_key });
        for _ in 0..2 {
            assert_eq!(unwrap().unwrap().as_slice(), CONTENT_KEY);
        }
        assert_eq!(unwrap(), Err(KeyError::Failed), "what fails twice is a bad ciphertext");
        assert_eq!(unwrap().unwrap().as_slice(), CONTENT_KEY, "the last of the troubles");
    });
}

/// A key in a token that says that it opens `said` sessions, and opens `opened`.
fn key_with_few_sessions(bed: &Bed, said: &str, opened: usize) -> (Token, RemoteKey) {
    let person = bed.person("ec@nec.example", P256, SIGN_AND_ENCRYPT);
    bed.import(&person, &person.address, "01");
    let config = Pkcs11Config { module: bed.few_sessions(said, opened), ..bed.config() };
    let token = Token::open(config).unwrap();
    let key = only(token.find(&person.address).unwrap());
    (token, key)
}

/// How many of 48 signatures asked for at once are none, for a reason that lets mail wait.
fn put_off_of_48(key: &RemoteKey) -> usize {
    let put_off = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| match key.secret.sign(ECDSA_SHA256, MESSAGE) {
                Ok(_) => {}
                Err(KeyError::Unavailable(_)) => {
                    put_off.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => panic!("mail would be refused for good: {error:?}"),
            });
        }
    });
    put_off.into_inner()
}

#[test]
fn no_more_sessions_are_asked_of_a_token_than_it_says_that_it_has() {
    inside("away::no_more_sessions_are_asked_of_a_token_than_it_says_that_it_has", |bed| {
        let (_token, key) = key_with_few_sessions(bed, "6", 6);
        assert_eq!((0..5).map(|_| put_off_of_48(&key)).sum::<usize>(), 0);
        assert!((1..=4).contains(&threads_of_tokens()), "{} threads", threads_of_tokens());
    });
}

/// Others may use it too, and it need not say how many sessions it has.
#[test]
fn mail_waits_for_a_session_and_those_that_are_open_do() {
    inside("away::mail_waits_for_a_session_and_those_that_are_open_do", |bed| {
        let (token, key) = key_with_few_sessions(bed, "CK_UNAVAILABLE_INFORMATION", 10);
        // Each thread that finds no session is one too many; a busy machine may begin few of them at once.
        assert!((0..48).any(|_| put_off_of_48(&key) > 0), "it is never short of sessions");
        assert!((0..48).any(|_| put_off_of_48(&key) == 0), "it is short of sessions for ever");
        assert_eq!((0..5).map(|_| put_off_of_48(&key)).sum::<usize>(), 0);
        // One session is for the login.
        let threads = threads_of_tokens();
        assert!((5..=9).contains(&threads), "{threads} threads for 9 sessions");
        assert_eq!(token.find("ec@nec.example").unwrap().len(), 1);
    });
}

/// Takes a key in and destroys it where our own threads have all sessions and keep them.
fn changes_with_few_sessions(bed: &Bed, said: &str, opened: usize) {
    let (token, key) = key_with_few_sessions(bed, said, opened);
    // Until each thread that is there has one.
    assert!((0..48).any(|_| put_off_of_48(&key) == 0));
    let has_a_session_each = || (1..opened).contains(&threads_of_tokens());
    assert!(has_a_session_each());
    let new = bed.person("new@nec.example", P256, SIGN_AND_ENCRYPT);
    for _ in 0..2 {
        token.insert(&[new_key(&new, &new)]).unwrap();
        signs(&only(token.find(&new.address).unwrap()));
        assert_eq!(token.remove(&new.address), Ok(1));
    }
    assert_eq!(put_off_of_48(&key), 0);
    assert!(has_a_session_each());
}

#[test]
fn a_key_is_taken_in_where_our_own_threads_have_all_sessions() {
    inside("away::a_key_is_taken_in_where_our_own_threads_have_all_sessions", |bed| {
        changes_with_few_sessions(bed, "CK_UNAVAILABLE_INFORMATION", 6);
    });
}

#[test]
fn a_key_is_taken_in_by_a_token_of_two_sessions() {
    inside("away::a_key_is_taken_in_by_a_token_of_two_sessions", |bed| {
        changes_with_few_sessions(bed, "2", 2);
    });
}

#[test]
fn a_token_without_any_session_says_so() {
    inside("away::a_token_without_any_session_says_so", |bed| {
        let config = Pkcs11Config { module: bed.few_sessions("0", 0), ..bed.config() };
        let error = Token::open(config).unwrap().find("ec@nec.example").unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains("SessionCount"), "{error}");
    });
}
