//! All seeds and up to some thousand mutations of them through every target: seconds, without libFuzzer.

#![expect(unsafe_code, reason = "an allocator")]

use omex_fuzz::{TARGETS, seeds};
use omex_tests::Random;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Refuses what no small input may ask for: the process then ends.
struct Bounded;

/// More than anything needs for inputs of some KB.
const MAX_ALLOCATION: usize = 64 << 20;

// SAFETY: the system's allocator, or null, which is allowed.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// Near the front as often as in the whole rest: that is where headers are.
fn place(random: &mut Random, end: usize) -> usize {
    let end = if random.below(2) == 0 { end.min(256) } else { end };
    random.below(end)
}

const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 63, u64::MAX];

fn mutate(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    let at = place(random, data.len());
    let length = random.below(data.len().min(64)).min(data.len() - at);
    match random.below(7) {
        0 => data.truncate(at),
        1 => drop(data.drain(at..at + length)),
        2 => {
            let piece = data[at..at + length].to_vec();
            let to = place(random, data.len());
            data.splice(to..to, piece);
        }
        3 => {
            let from = random.below(other.len());
            let piece = other[from..(from + length).min(other.len())].to_vec();
            data.splice(at..at + piece.len().min(length), piece);
        }
        4 => {
            let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
            let width = [1, 2, 4, 8][random.below(4)].min(data.len() - at);
            data[at..at + width].copy_from_slice(&number[..width]);
        }
        5 => {
            if let Some(byte) = data.get_mut(at) {
                *byte = random.draw() as u8;
            }
        }
        _ => {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

/// The longest that one input may take, on a slow machine without optimisation.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Mutations of a target's seeds end after this, unless a number of them is asked for.
const ENOUGH: Duration = Duration::from_secs(6);

#[test]
fn seeds_and_their_mutations_are_survived() {
    let asked: Option<usize> =
        std::env::var("OMEX_FUZZ_RUNS").ok().map(|runs| runs.parse().unwrap());
    let runs = asked.unwrap_or(4000);
    for (name, target) in TARGETS {
        let seeds: Vec<_> = read(&folder(name)).into_iter().map(|(_, bytes)| bytes).collect();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut random = Random(1);
        let start = Instant::now();
        let mut taken = 0;
        for run in 0..seeds.len() + runs {
            if asked.is_none() && run >= seeds.len() && start.elapsed() > ENOUGH {
                break;
            }
            taken = run + 1;
            let mut data = seeds[run % seeds.len()].clone();
            if run >= seeds.len() {
                for _ in 0..1 + random.below(4) {
                    let other = random.below(seeds.len());
                    mutate(&mut random, &mut data, &seeds[other]);
                }
            }
            let before = Instant::now();
            let survived = catch_unwind(AssertUnwindSafe(|| target(&data))).is_ok();
            if !survived || before.elapsed() > MAX_TIME {
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(name);
                fs::create_dir_all(&path).unwrap();
                fs::write(path.join(format!("replay-{run}")), &data).unwrap();
                let what = if survived { "took too long" } else { "panicked" };
                panic!("{name}: input {run} {what}; it is artifacts/{name}/replay-{run}");
            }
        }
        println!("{name}: {taken} inputs in {:?}", start.elapsed());
    }
}

/// The checked-in seeds are what `seeds::all` makes; `OMEX_UPDATE_SEEDS=1` writes them.
#[test]
fn seeds_are_up_to_date() {
    const UPDATE: &str = "OMEX_UPDATE_SEEDS";
    for (name, _) in TARGETS {
        let (folder, expected) = (folder(name), seeds::all(name));
        if std::env::var_os(UPDATE).is_some() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            expected.iter().for_each(|(file, bytes)| fs::write(folder.join(file), bytes).unwrap());
        }
        for (file, bytes) in expected {
            let found = fs::read(folder.join(file)).unwrap_or_default();
            assert!(found == bytes, "seeds/{name}/{file} is out of date: run with {UPDATE}=1");
        }
    }
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

fn read(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|e| (e.path(), fs::read(e.path()).unwrap())).collect();
    files.sort();
    files
}
