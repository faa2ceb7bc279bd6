//! Copies for many, and memory for some of them (REQUIREMENTS K10).

use std::sync::Mutex;

use super::*;

const BOB: &str = "bob@abc.example";

/// Memory of a size, and what was taken of it.
#[derive(Debug)]
struct Limited {
    bytes_max: usize,
    taken: Mutex<Vec<usize>>,
}

impl Limited {
    fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, taken: Mutex::default() })
    }

    fn used(&self) -> usize {
        self.taken.lock().unwrap().iter().sum()
    }
}

impl Room for Limited {
    fn take(&self, bytes: usize) -> bool {
        let fits = self.used() + bytes <= self.bytes_max;
        if fits {
            self.taken.lock().unwrap().push(bytes);
        }
        fits
    }
}

/// Everybody but bob is unnamed, and so gets a copy of his own.
struct Sending {
    world: World,
    keys: Keys,
    to: Vec<String>,
    mail: Vec<u8>,
}

impl Sending {
    fn new() -> Self {
        let world = World::new();
        let mut keys = world.keys(true);
        let blind = (0..4).map(|n| format!("blind{n}@abc.example"));
        let to: Vec<String> = std::iter::once(BOB.to_owned()).chain(blind).collect();
        for address in &to {
            let person = Person::new(address, &world.authority);
            keys.public.insert(person.address.clone(), Ok(vec![person.public(true)]));
        }
        keys.public.insert(world.bob.address.clone(), Ok(vec![world.bob.public(true)]));
        let mail = [MAIL, &b"more of the same\r\n".repeat(6_000)].concat();
        Self { world, keys, to, mail }
    }

    fn send(
        &self,
        decision: Decision,
        room: &Arc<Limited>,
        served: &[bool],
    ) -> Result<Done, Refusal> {
        let context = context("nec.example", &self.world.authority, decision);
        let to: Vec<&str> = self.to.iter().map(String::as_str).collect();
        let (id, message) = ("ID".to_owned(), Message::new(Bytes::from(self.mail.clone())));
        let envelope = envelope("alice@nec.example", &to);
        let room: Arc<dyn Room> = room.clone();
        let mut outbound = Outbound::new(context, id, envelope, message, Vec::new()).within(room);
        outbound.skip(served);
        loop {
            match outbound.step(&self.keys) {
                Step::Want(_) => {}
                Step::Done(done) => return Ok(*done),
                Step::Refused(refused) => return Err(refused.0),
            }
        }
    }
}

fn served_by(done: &Done) -> Vec<usize> {
    done.parcels.iter().flat_map(|parcel| parcel.recipients.clone()).collect()
}

#[test]
fn what_does_not_fit_is_deferred_and_no_more() {
    let sending = Sending::new();
    let ample = Limited::new(usize::MAX);
    let done = sending.send(Decision::default(), &ample, &[]).unwrap();
    assert_eq!((served_by(&done), &done.deferred), (vec![0, 1, 2, 3, 4], &vec![]));
    let taken = ample.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 4, "all but the first");
    for (taken, parcel) in taken.iter().zip(&done.parcels[1..]) {
        let size = parcel.size_bytes();
        assert!((size..size + size / 5).contains(taken), "{taken} for {size}");
    }
    // A signature is some octets longer or shorter each time.
    let (all, last) = (taken.iter().sum::<usize>(), taken[3]);
    let done = sending.send(Decision::default(), &Limited::new(all + last / 2), &[]).unwrap();
    assert!(done.deferred.is_empty(), "{:?}", done.deferred);
    let done = sending.send(Decision::default(), &Limited::new(all - last / 2), &[]).unwrap();
    assert_eq!((served_by(&done), done.deferred), (vec![0, 1, 2, 3], vec![4]));
}

#[test]
fn each_attempt_gets_further_with_no_room_at_all() {
    let sending = Sending::new();
    let mut served = vec![false; sending.to.len()];
    for attempt in 0..sending.to.len() {
        let none = Limited::new(0);
        let done = sending.send(Decision::default(), &none, &served).unwrap();
        assert_eq!(served_by(&done), [attempt]);
        assert_eq!(done.deferred.len(), sending.to.len() - attempt - 1);
        // Bob has it, and is still named to those who get it after him.
        assert!(
            sending.world.open(&joined(&done.parcels[0].message), &sending.world.bob).is_some()
        );
        served[attempt] = true;
    }
    let done = sending.send(Decision::default(), &Limited::new(0), &served).unwrap();
    assert!(done.parcels.is_empty() && done.deferred.is_empty());
}

#[test]
fn copies_that_share_one_body_take_no_room() {
    let sending = Sending::new();
    for sign in [Sign::Never, Sign::Always] {
        let decision = Decision { encrypt: Encrypt::Never, sign, ..Decision::default() };
        let none = Limited::new(0);
        let done = sending.send(decision, &none, &[]).unwrap();
        assert_eq!((done.parcels.len(), done.deferred.len(), none.used()), (5, 0, 0));
    }
}

#[test]
fn a_missing_key_refuses_all_before_anything_is_deferred() {
    let mut sending = Sending::new();
    let last = Address::parse(&sending.to[4]).unwrap();
    sending.keys.public.insert(last.clone(), Ok(Vec::new()));
    let refusal = sending.send(Decision::default(), &Limited::new(0), &[]).unwrap_err();
    assert_eq!(refusal, Refusal::NoEncryptionKey(last));
}
