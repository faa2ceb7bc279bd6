//! What others may see of the memory of a process that holds keys or mail.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::output;

/// No core file, and no other process of this user may read our memory: there are keys and mail in it (REQUIREMENTS L5).
/// To be called before the first key is read.
pub(super) fn forbid_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    if let Err(error) = limited.and(set_dumpable_behavior(DumpableBehavior::NotDumpable)) {
        // No log has been started yet.
        output::warning(&format!("core dumps cannot be forbidden: {error}"));
    }
}
