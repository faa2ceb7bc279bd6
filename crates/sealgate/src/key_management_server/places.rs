//! Places for connections, in all and for each name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The places.
#[derive(Debug, Default)]
pub(crate) struct Places {
    taken: Mutex<HashMap<String, usize>>,
}

impl Places {
    /// Takes one; `None` where a limit is reached.
    pub(crate) fn admit(
        self: &Arc<Self>,
        name: &str,
        per_name_max: usize,
        total_max: usize,
    ) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_name = taken.get(name).copied().unwrap_or_default();
        if of_name >= per_name_max || taken.values().sum::<usize>() >= total_max {
            return None;
        }
        taken.insert(name.to_owned(), of_name.saturating_add(1));
        Some(Place { places: Arc::clone(self), name: name.to_owned() })
    }

    /// How many are taken.
    pub(crate) fn total(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    name: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = Arc::new(Places::default());
        let one = places.admit("a", 1, 2);
        assert!(one.is_some() && places.admit("a", 1, 2).is_none());
        let _other = places.admit("b", 1, 2).unwrap();
        assert!(places.admit("c", 1, 2).is_none(), "two in all");
        drop(one);
        assert_eq!(places.total(), 1);
        assert!(places.admit("a", 1, 2).is_some());
    }
}
