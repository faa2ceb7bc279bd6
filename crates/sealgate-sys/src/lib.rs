//! The calls that Rust cannot check, each with the reason why it is sound (REQUIREMENTS L9). All other crates forbid `unsafe`.
//!
//! In: plain numbers. Out: whether the system took them.

/// Lets glibc's allocator keep so many pools ("arenas") of memory, instead of eight for each processor (mallopt(3)). What one
/// thread frees stays in its pool, so that many pools hold much more than is in use; few of them are waited for more
/// often. Whether it was taken: never where the allocator is another. What `MALLOC_ARENA_MAX` says in the environment goes
/// before.
pub fn bound_arenas(arenas: usize) -> bool {
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() {
        return false;
    }
    libc::c_int::try_from(arenas).is_ok_and(set_arena_max)
}

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "no safe wrapper of mallopt is kept")]
fn set_arena_max(arenas: libc::c_int) -> bool {
    // SAFETY: it takes two integers by value and changes only the allocator's own settings, under the allocator's lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, arenas) == 1 }
}

#[cfg(not(target_env = "gnu"))]
fn set_arena_max(_arenas: libc::c_int) -> bool {
    false
}

/// Ends this process without running anything more of it, the destructors of shared objects included (_exit(2)).
#[allow(unsafe_code, reason = "the standard library has no way around destructors but an abort")]
pub fn exit_at_once(status: u8) -> ! {
    // SAFETY: it takes an integer by value and does not return: nothing of ours runs after it.
    unsafe { libc::_exit(i32::from(status)) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;
    use std::sync::{Arc, Barrier};
    use std::{fs, thread};

    use super::*;

    /// Heaps of arenas other than the first begin at multiples of this (glibc's `HEAP_MAX_SIZE` on 64 bits).
    const HEAP_BYTES: usize = 64 << 20;
    const THREADS: usize = 12;

    fn heaps() -> BTreeSet<usize> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let start = |line: &str| usize::from_str_radix(line.split('-').next()?, 16).ok();
        maps.lines().filter_map(start).filter(|start| start % HEAP_BYTES == 0).collect()
    }

    /// Says so, should it ever be dropped.
    struct Loud;

    impl Drop for Loud {
        fn drop(&mut self) {
            println!("a destructor ran");
        }
    }

    thread_local!(static LOUD: Loud = const { Loud });

    #[test]
    fn a_process_ends_with_its_status_and_without_its_destructors() {
        const INSIDE: &str = "SEALGATE_EXITS";
        if std::env::var_os(INSIDE).is_some() {
            LOUD.with(|_| exit_at_once(7));
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["tests::a_process_ends_with_its_status_and_without_its_destructors"]);
        let ran = command.args(["--exact", "--nocapture"]).env(INSIDE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert_eq!(ran.status.code(), Some(7), "{said}");
        assert!(said.contains("running 1 test") && !said.contains("a destructor ran"), "{said}");
    }

    #[test]
    fn threads_share_the_arenas_that_there_are() {
        let before = heaps().len();
        assert!(bound_arenas(2));
        let together = Arc::new(Barrier::new(THREADS + 1));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let together = Arc::clone(&together);
                thread::spawn(move || {
                    let held = vec![1_u8; 50_000];
                    together.wait();
                    together.wait();
                    held.len()
                })
            })
            .collect();
        together.wait();
        let with_threads = heaps().len();
        together.wait();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 50_000));
        assert!(with_threads <= before + 1, "{before} heaps, and {with_threads} with threads");
    }
}
