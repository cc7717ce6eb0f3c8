//! Numbers for things that many states share, so that a state is a few numbers.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, RwLock},
};

/// Gives equal things the same number, for as long as it lives.
#[derive(Debug)]
pub struct Interner<T>(RwLock<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    numbers: HashMap<Arc<T>, u32>,
    things: Vec<Arc<T>>,
}

impl<T: Hash + Eq> Interner<T> {
    /// The number of `thing`.
    pub fn number(&self, thing: T) -> u32 {
        if let Some(number) = self.0.read().expect("no thread panics with it").numbers.get(&thing) {
            return *number;
        }
        let mut inner = self.0.write().expect("no thread panics with it");
        if let Some(number) = inner.numbers.get(&thing) {
            return *number;
        }
        let number = u32::try_from(inner.things.len()).expect("memory ends before the numbers do");
        let thing = Arc::new(thing);
        inner.things.push(thing.clone());
        inner.numbers.insert(thing, number);
        number
    }

    /// The thing with that number.
    pub fn get(&self, number: u32) -> Arc<T> {
        self.0.read().expect("no thread panics with it").things[number as usize].clone()
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.0.read().expect("no thread panics with it").things.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Default for Interner<T> {
    fn default() -> Interner<T> {
        Interner(RwLock::new(Inner { numbers: HashMap::new(), things: Vec::new() }))
    }
}

/// Answers that are worked out once.
#[derive(Debug)]
pub struct Memo<K, V>(RwLock<HashMap<K, V>>);

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    /// The answer to `question`.
    pub fn answer(&self, question: K, work_out: impl FnOnce(&K) -> V) -> V {
        if let Some(known) = self.0.read().expect("no thread panics with it").get(&question) {
            return known.clone();
        }
        let answer = work_out(&question);
        self.0.write().expect("no thread panics with it").entry(question).or_insert(answer).clone()
    }

    /// How many questions were asked.
    pub fn len(&self) -> usize {
        self.0.read().expect("no thread panics with it").len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, V> Default for Memo<K, V> {
    fn default() -> Memo<K, V> {
        Memo(RwLock::new(HashMap::new()))
    }
}
