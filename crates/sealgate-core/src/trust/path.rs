//! Builds candidate paths from a certificate up to the anchors (RFC 4158), depth first and bounded.
//!
//! In: the certificate, the store's anchors and intermediates, what a message offered. Out: paths
//! whose names fit and whose signatures verify, one after another, until the caller has seen
//! enough. Nothing here decides whether a path is good: RFC 5280 §6 is asked of each one in
//! `validate`. Hints are untrusted: only what says it is an authority is looked at, no authority
//! (name and key) occurs twice in a path, and every step is counted.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::trust::anchor::Anchor;
use crate::trust::link::Link;
use crate::trust::signature::{Checks, Strength};

/// A candidate: an anchor and the certificates below it.
#[derive(Debug)]
pub(super) struct Path<'a> {
    pub(super) anchor: &'a Anchor,
    /// Intermediates, from the one the anchor issued downwards; then the target.
    pub(super) links: Vec<&'a Link>,
    /// The weakest of its signatures.
    pub(super) strength: Strength,
}

/// Where to look for issuers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources<'a> {
    pub(super) anchors: &'a [Anchor],
    /// The administrator's intermediates: tried before what a message offers.
    pub(super) intermediates: &'a [Arc<Link>],
    pub(super) offered: &'a [Link],
}

/// Whether everything was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Searched {
    /// A limit ended the search or cut a branch off.
    InPart,
    /// Everything, or until the caller had seen enough.
    Whole,
}

/// Shows the caller one path after another.
pub(super) fn search<'a>(
    target: &'a Link,
    sources: Sources<'a>,
    checks: &Checks,
    mut visit: impl FnMut(&Path<'a>) -> ControlFlow<()>,
) -> Searched {
    let mut searched = Searched::Whole;
    let mut steps = 0_usize;
    let mut paths = 0_usize;
    let mut stack = vec![Frame::new(target, Strength::Strong, sources)];
    while let Some(frame) = stack.last_mut() {
        let Some(candidate) = frame.candidates.pop() else {
            stack.pop();
            continue;
        };
        let (below, strength) = (frame.link, frame.strength);
        steps = steps.saturating_add(1);
        if steps > STEPS_MAX {
            return Searched::InPart;
        }
        let issuer = candidate.link();
        if is_on_path(&stack, issuer) {
            continue;
        }
        let found = match checks.verify(below.signed(), issuer.key()) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(_) => return Searched::InPart,
        };
        let strength = weaker(strength, found);
        match candidate {
            Candidate::Anchor(anchor) => {
                paths = paths.saturating_add(1);
                if paths > PATHS_MAX {
                    return Searched::InPart;
                }
                let links = stack.iter().rev().map(|frame| frame.link).collect();
                if visit(&Path { anchor, links, strength }).is_break() {
                    return Searched::Whole;
                }
            }
            Candidate::Link(link) if stack.len() < LENGTH_MAX => {
                stack.push(Frame::new(link, strength, sources));
            }
            Candidate::Link(_) => searched = Searched::InPart,
        }
    }
    searched
}

/// A certificate on the path being built, and who may have issued it.
#[derive(Debug)]
struct Frame<'a> {
    link: &'a Link,
    /// The weakest signature below it.
    strength: Strength,
    /// The best last.
    candidates: Vec<Candidate<'a>>,
}

#[derive(Clone, Copy, Debug)]
enum Candidate<'a> {
    Anchor(&'a Anchor),
    Link(&'a Link),
}

impl<'a> Candidate<'a> {
    fn link(&self) -> &'a Link {
        match self {
            Self::Anchor(anchor) => anchor.link(),
            Self::Link(link) => link,
        }
    }
}

impl<'a> Frame<'a> {
    fn new(link: &'a Link, strength: Strength, sources: Sources<'a>) -> Self {
        let anchors =
            sources.anchors.iter().filter(|anchor| anchor.may_issue()).map(Candidate::Anchor);
        let intermediates = sources.intermediates.iter().map(|link| &**link);
        let links = intermediates
            .chain(sources.offered)
            .filter(|link| link.may_issue())
            .map(Candidate::Link);
        let mut candidates: Vec<Candidate<'a>> = anchors
            .chain(links)
            .filter(|candidate| candidate.link().subject_fold() == link.issuer_fold())
            .collect();
        // Stable: among equals the order stays anchors, the administrator's, the message's.
        candidates.sort_by_key(|candidate| link.distance_to_issuer(candidate.link()));
        candidates.reverse();
        Self { link, strength, candidates }
    }
}

fn is_on_path(stack: &[Frame<'_>], issuer: &Link) -> bool {
    stack.iter().any(|frame| frame.link.is_same_authority(issuer))
}

pub(super) fn weaker(one: Strength, other: Strength) -> Strength {
    if one == Strength::Weak { one } else { other }
}

/// Certificates of a path, the anchor not counted (REQUIREMENTS K6).
pub(super) const LENGTH_MAX: usize = 8;
/// Candidate paths (REQUIREMENTS K6).
const PATHS_MAX: usize = 100;
/// Issuers looked at, on dead branches too.
const STEPS_MAX: usize = 2_000;
