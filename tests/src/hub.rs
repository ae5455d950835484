//! A hub on this machine that speaks Hugging Face's protocol, and a store beside it that large files are
//! sent from; both misbehave as they are told.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The commit that everything is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The one repository.
pub const REPOSITORY: &str = "org/tiny";

/// A file of the repository.
#[derive(Clone, Debug)]
pub struct Served {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Whether it is sent from the store.
    pub is_large: bool,
    /// What it is said to be called by its content.
    pub checksum: String,
}

/// What the store does to one answer.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Closes the connection behind so many bytes of the body.
    Cut(usize),
    /// Sends all of the file whatever was asked for.
    Whole,
    /// Sends another part than was asked for.
    OtherPart,
    /// Sends so many bytes, and then nothing.
    Silence(usize),
    /// Changes a byte.
    Damage,
    /// Sends more than the file has.
    More,
    /// An answer without a body.
    Status(u16, &'static str),
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether it came to the store.
    pub by_store: bool,
    /// What was asked for.
    pub path: String,
    /// The first byte that was asked for.
    pub from: usize,
    /// `Authorization`.
    pub token: Option<String>,
}

/// The hub.
#[derive(Clone)]
pub struct Hub {
    state: Arc<Mutex<State>>,
    addresses: [String; 2],
}

struct State {
    files: BTreeMap<String, Served>,
    faults: VecDeque<Fault>,
    /// Statuses that the hub itself answers with, and what it says then.
    refusals: VecDeque<(u16, &'static str)>,
    seen: Vec<Seen>,
    store: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Hub {
    /// A hub with these files; the large ones are those of so many bytes or more.
    #[must_use]
    pub fn new(files: &[(&str, Vec<u8>)], large: usize) -> Self {
        let file = |(name, bytes): &(&str, Vec<u8>)| {
            let is_large = bytes.len() >= large;
            let checksum = if is_large {
                hex(digest(&SHA256, bytes).as_ref())
            } else {
                let blob = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
                hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, &blob).as_ref())
            };
            ((*name).to_owned(), Served { bytes: bytes.clone(), is_large, checksum })
        };
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [0, 1].map(|i| format!("http://{}", listeners[i].local_addr().unwrap()));
        let state = State {
            files: files.iter().map(file).collect(),
            faults: VecDeque::new(),
            refusals: VecDeque::new(),
            seen: vec![],
            store: addresses[1].clone(),
        };
        let hub = Self { state: Arc::new(Mutex::new(state)), addresses };
        for (index, listener) in listeners.into_iter().enumerate() {
            let hub = hub.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let hub = hub.clone();
                    std::thread::spawn(move || hub.serve(stream, index == 1));
                }
            });
        }
        hub
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.addresses[0]
    }

    /// Has the store do these things, an answer each.
    pub fn misbehave(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults = faults.iter().copied().collect();
    }

    /// Has the hub itself answer with these statuses and headers.
    pub fn refuse(&self, answers: &[(u16, &'static str)]) {
        self.state.lock().unwrap().refusals = answers.iter().copied().collect();
    }

    /// Changes a file.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Served)) {
        change(self.state.lock().unwrap().files.get_mut(name).unwrap());
    }

    /// The requests since this was asked last.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }

    /// A file's checksum.
    #[must_use]
    pub fn checksum(&self, name: &str) -> String {
        self.state.lock().unwrap().files[name].checksum.clone()
    }

    fn serve(&self, mut stream: TcpStream, by_store: bool) {
        let Some(seen) = request(&stream, by_store) else { return };
        let mut state = self.state.lock().unwrap();
        state.seen.push(seen.clone());
        let fault = if by_store { state.faults.pop_front() } else { None };
        let refusal = if by_store { None } else { state.refusals.pop_front() };
        let answer = match refusal {
            Some((status, headers)) => Answer::empty(status, headers),
            None if by_store => state.of_store(&seen, fault),
            None => state.of_hub(&seen),
        };
        drop(state);
        // Whoever asked may be gone.
        let _ = answer.send(&mut stream);
    }
}

/// Reads a request; none if the connection ends.
fn request(stream: &TcpStream, by_store: bool) -> Option<Seen> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut seen = Seen { by_store, path, from: 0, token: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { return Some(seen) };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                seen.from = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
            }
            "authorization" => seen.token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    None
}

impl State {
    fn of_hub(&self, seen: &Seen) -> Answer {
        let path = seen.path.split('?').next().unwrap();
        if path.contains("/org/old/") {
            let location = seen.path.replace("org/old", REPOSITORY);
            return Answer::empty(307, &format!("Location: {location}\r\n"));
        }
        if path.starts_with(&format!("/api/models/{REPOSITORY}/revision/")) {
            let body = self.listing().to_string().into_bytes();
            return Answer { body, ..Answer::empty(200, "") };
        }
        let name = path.strip_prefix(&format!("/{REPOSITORY}/resolve/{COMMIT}/"));
        let Some((name, file)) = name.and_then(|name| Some((name, self.files.get(name)?))) else {
            return Answer::empty(404, "X-Error-Code: EntryNotFound\r\n");
        };
        let (length, checksum) = (file.bytes.len(), &file.checksum);
        let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
        if file.is_large {
            let location = format!("Location: {}/{name}?signature=secret\r\n", self.store);
            let linked = format!("X-Linked-Etag: \"{checksum}\"\r\nX-Linked-Size: {length}\r\n");
            return Answer::empty(302, &format!("{commit}{location}{linked}"));
        }
        let headers = format!("{commit}ETag: \"{checksum}\"\r\n");
        part(&file.bytes, seen.from, &headers)
    }

    fn listing(&self) -> Value {
        let sibling = |(name, file): (&String, &Served)| {
            let (size, checksum) = (file.bytes.len(), &file.checksum);
            let mut sibling = json!({ "rfilename": name, "size": size, "blobId": checksum });
            if file.is_large {
                sibling["blobId"] = json!("f".repeat(40));
                sibling["lfs"] = json!({ "sha256": checksum, "size": size, "pointerSize": 130 });
            }
            sibling
        };
        json!({ "id": REPOSITORY, "sha": COMMIT,
                "siblings": self.files.iter().map(sibling).collect::<Vec<_>>() })
    }

    fn of_store(&self, seen: &Seen, fault: Option<Fault>) -> Answer {
        let name = seen.path.trim_start_matches('/').split('?').next().unwrap();
        let mut bytes = self.files[name].bytes.clone();
        match fault {
            Some(Fault::Damage) => *bytes.last_mut().unwrap() ^= 1,
            Some(Fault::More) => bytes.push(0),
            Some(Fault::Status(status, headers)) => return Answer::empty(status, headers),
            _ => {}
        }
        let answer = match fault {
            Some(Fault::Whole) => part(&bytes, 0, ""),
            Some(Fault::OtherPart) => part(&bytes, seen.from + 1, ""),
            _ => part(&bytes, seen.from, ""),
        };
        match fault {
            Some(Fault::Cut(sent)) => Answer { sent, ..answer },
            Some(Fault::Silence(sent)) => Answer { sent, stays: true, ..answer },
            _ => answer,
        }
    }
}

/// An answer with the bytes of a file from one on.
fn part(bytes: &[u8], from: usize, headers: &str) -> Answer {
    let all = bytes.len();
    if from == 0 {
        return Answer { body: bytes.to_vec(), ..Answer::empty(200, headers) };
    }
    let Some(body) = bytes.get(from..).filter(|body| !body.is_empty()) else {
        return Answer::empty(416, headers);
    };
    let range = format!("Content-Range: bytes {from}-{}/{all}\r\n", all - 1);
    Answer { body: body.to_vec(), ..Answer::empty(206, &format!("{headers}{range}")) }
}

struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Bytes of the body that are sent.
    sent: usize,
    /// Whether the connection stays open behind them.
    stays: bool,
}

impl Answer {
    fn empty(status: u16, headers: &str) -> Self {
        let headers = headers.to_owned();
        Self { status, headers, body: vec![], sent: usize::MAX, stays: false }
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let Self { status, headers, body, sent, stays } = self;
        let length = body.len();
        let head = format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\n");
        stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes())?;
        stream.write_all(&body[..length.min(*sent)])?;
        stream.flush()?;
        if *stays {
            std::thread::sleep(Duration::from_secs(60));
        }
        Ok(())
    }
}
