//! The line between the relay and its name server, which breaks at times, and when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ledger::{Hit, Side};
use super::trouble::{Lines, Trouble as LineTrouble};
use super::world::World;
use crate::dns_line::{self, Trouble};

/// Lays the line; where the relay is to ask.
pub(super) fn lay(world: &Arc<World>, target: SocketAddr) -> SocketAddr {
    let world = Arc::clone(world);
    dns_line::lay(target, move |_| {
        // Some are spared, so that what is asked after them is hit as well.
        let ordered = world.orders.standing(Lines::Names);
        if let Some(trouble) = ordered.filter(|_| world.chance.one_in(ORDERED_ONE_IN)) {
            world.orders.obey(Lines::Names);
            return Some(obey(&world, trouble));
        }
        world.chance.strikes(TROUBLE_ONE_IN).then(|| choose(&world))
    })
}

/// What a line's trouble is to single answers.
fn obey(world: &World, trouble: LineTrouble) -> Trouble {
    let (trouble, kind) = match trouble {
        LineTrouble::Cut => (Trouble::Lost, "lost"),
        LineTrouble::Garbled => (Trouble::Garbled(any_bit(world)), "garbled"),
        LineTrouble::Held | LineTrouble::Slow => {
            (Trouble::Late(world.chance.below(ORDERED_LATE_MS_MAX)), "late")
        }
        LineTrouble::Truncated => (Trouble::Short, "cut short"),
    };
    note(world, kind);
    trouble
}

/// Quick ones mostly: for an answer that is lost the relay waits, and then nothing happens.
fn choose(world: &World) -> Trouble {
    let bit = any_bit(world);
    let (trouble, kind) = world.chance.pick(&[
        (Trouble::Denied, "denied without proof"),
        (Trouble::Denied, "denied without proof"),
        (Trouble::Emptied, "emptied without proof"),
        (Trouble::Emptied, "emptied without proof"),
        (Trouble::DeniedByAnother, "denied by another zone"),
        (Trouble::EmptiedByAnother, "emptied by another zone"),
        (Trouble::Failing, "a failure"),
        (Trouble::Garbled(bit), "garbled"),
        (Trouble::Garbled(bit), "garbled"),
        (Trouble::Late(world.chance.below(LATE_MS_MAX)), "late"),
        (Trouble::Lost, "lost"),
        (Trouble::Short, "cut short"),
        (Trouble::Truncated, "said to be too long"),
    ]);
    note(world, kind);
    trouble
}

fn any_bit(world: &World) -> usize {
    usize::try_from(world.chance.below(GARBLED_BITS)).unwrap()
}

fn note(world: &World, kind: &str) {
    world.ledger.struck(Side::Names, &format!("answer {kind}"), Hit::Anybody);
}

/// How many answers are spared.
const TROUBLE_ONE_IN: u64 = 16;
/// How many are spared while an order stands.
const ORDERED_ONE_IN: u64 = 2;
/// Before the life ends that the order is for.
const ORDERED_LATE_MS_MAX: u64 = 900;
/// The latest answer.
const LATE_MS_MAX: u64 = 1500;
/// More than any answer has.
const GARBLED_BITS: u64 = 8 * 65_536;
