//! What runs a target where libFuzzer is not: every input of the kept corpus, and then so many that are made from it.
//!
//! Nothing guides it and no sanitizer watches it, so it finds what is easy to find: a target that no longer holds on what
//! is known, or on its near neighbours. The same seed makes the same inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Longest input that is made.
const MOST: usize = 2048;
/// How long one input may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Changes of an input at a time, at most.
const CHANGES: usize = 5;

/// Runs `once` as the target `name`: `TARGET CORPUS ARTIFACTS [RUNS [SECONDS [SEED]]]`, or `TARGET FILE` for one input.
#[allow(clippy::disallowed_methods, reason = "an edge: how long it runs")]
pub fn main(name: &str, once: fn(&[u8])) -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (corpus, artifacts) = match &arguments[..] {
        [file] => {
            once(&fs::read(file).expect("the input"));
            return ExitCode::SUCCESS;
        }
        [corpus, artifacts, ..] => (PathBuf::from(corpus), PathBuf::from(artifacts)),
        [] => panic!("where is the corpus?"),
    };
    let [runs, seconds, seed] =
        [number(2, 10_000), number(3, 10), number(4, 1)].map(|number| number.expect("a number"));
    let watch = Watch::start(artifacts);
    let kept = read(&corpus);
    assert!(!kept.is_empty(), "nothing in {}", corpus.display());
    if kept.iter().any(|input| !watch.holds(once, input)) {
        return ExitCode::FAILURE;
    }
    let (since, mut dice, mut made) = (Instant::now(), Dice(seed.wrapping_mul(2).wrapping_add(1)), 0);
    while made < runs && since.elapsed() < Duration::from_secs(seconds) {
        if !watch.holds(once, &dice.input(&kept)) {
            return ExitCode::FAILURE;
        }
        made += 1;
    }
    println!("{name:<13} {:>4} kept, {made:>6} made from them", kept.len());
    ExitCode::SUCCESS
}

/// The inputs in `corpus`, in the order of their names.
fn read(corpus: &Path) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus).expect("the corpus").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("an input")).collect()
}

/// Sees that every input holds, and ends in time.
struct Watch {
    artifacts: PathBuf,
    input: &'static Mutex<Vec<u8>>,
    count: &'static AtomicU64,
}

impl Watch {
    fn start(artifacts: PathBuf) -> Self {
        fs::create_dir_all(&artifacts).expect("a directory");
        let input: &Mutex<Vec<u8>> = Box::leak(Box::default());
        let count: &AtomicU64 = Box::leak(Box::default());
        let at = artifacts.clone();
        thread::spawn(move || {
            let mut before = 0;
            loop {
                thread::sleep(PATIENCE);
                let now = count.load(Ordering::Relaxed);
                if now == before {
                    keep(&at, "slow", &input.lock().expect("nobody panics with it"));
                    std::process::exit(1);
                }
                before = now;
            }
        });
        Self { artifacts, input, count }
    }

    /// False when `once` does not hold on `bytes`, which are then kept.
    fn holds(&self, once: fn(&[u8]), bytes: &[u8]) -> bool {
        *self.input.lock().expect("nobody panics with it") = bytes.to_vec();
        self.count.fetch_add(1, Ordering::Relaxed);
        let holds = catch_unwind(AssertUnwindSafe(|| once(bytes))).is_ok();
        if !holds {
            keep(&self.artifacts, "broken", bytes);
        }
        holds
    }
}

fn keep(artifacts: &Path, what: &str, bytes: &[u8]) {
    let file = artifacts.join(what);
    fs::write(&file, bytes).expect("the input is kept");
    eprintln!("{what}: kept in {}: {}", file.display(), bytes.escape_ascii());
}

/// Where the inputs come from: the same seed, the same inputs.
struct Dice(u64);

impl Dice {
    /// Below `bound`; 0 when that is 0. (Marsaglia's xorshift: no crate's next version may change the inputs.)
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap_or(0) % bound.max(1)
    }

    /// One of the kept inputs, changed in a few places.
    fn input(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = kept[self.below(kept.len())].clone();
        for _ in 0..=self.below(CHANGES) {
            let other = &kept[self.below(kept.len())];
            self.change(&mut input, other);
        }
        input.truncate(MOST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        const TELLING: &[u8] = b"\0\x01\x7f\x80\xff \t\r\n:;,=\"\\0\x2f9aZ";
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(7) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < input.len() => input[at] = TELLING[self.below(TELLING.len())],
            2 => input.insert(at, TELLING[self.below(TELLING.len())]),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            5 => {
                let from = self.below(other.len() + 1);
                let upto = (from + 1 + self.below(64)).min(other.len());
                input.splice(at..at, other[from..upto].iter().copied());
            }
            _ => input.truncate(at.max(1)),
        }
    }
}
