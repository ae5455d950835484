//! Models from a hub that speaks Hugging Face's protocol, in the cache that its own programs keep.
//!
//! [`Hub::find`] asks what a repository has in it and gets what is small: the hyperparameters, so that
//! they can be planned for. [`Found::fetch`] gets the rest.

mod cache;
mod choose;
mod client;
mod download;
mod listing;
mod name;
mod trust;

pub use client::Patience;
pub use listing::File;
pub use name::Name;

use crate::cancel::Cancel;
use crate::{Error, Result, input};
use cache::Cache;
use client::Client;
use listing::{Digest, Listing, escaped};
use std::path::{Path, PathBuf};

/// The longest token that is kept in a file.
const MAX_TOKEN_BYTES: u64 = 4096;

/// Where models are got from, and kept.
#[derive(Clone, Debug)]
pub struct Options {
    /// The hub's address.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<String>,
    /// The folder that holds all repositories.
    pub cache: PathBuf,
    /// Certificates that are trusted instead of Mozilla's list, in PEM.
    pub certificates: Option<PathBuf>,
    /// Ask nobody: what is in the cache has to do.
    pub offline: bool,
    /// How much is borne with.
    pub patience: Patience,
    /// Stops whatever is under way; what has come is kept.
    pub cancel: Cancel,
}

impl Options {
    /// As `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_OFFLINE` and `SSL_CERT_FILE` say,
    /// and the token that Hugging Face's own programs were logged in with.
    ///
    /// # Errors
    /// A variable that holds no such thing, or no folder for the cache.
    pub fn of_environment(cancel: Cancel) -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or("https://huggingface.co".into());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let message = "expected an address that begins with https://";
            return Err(Error::Usage(format!("HF_ENDPOINT: found {endpoint:?}, {message}")));
        }
        let Some([cache, home]) = cache::folders_of_environment() else {
            return Err(Error::Usage("no folder for models: set HF_HUB_CACHE".into()));
        };
        let kept = || input::read_text(&home.join("token"), MAX_TOKEN_BYTES).ok();
        let token = variable("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned());
        // It goes into a header, which a line end would end.
        if token.iter().any(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(Error::Usage("HF_TOKEN: expected letters and digits only".into()));
        }
        let off = variable("HF_HUB_OFFLINE").map(|value| value.to_lowercase());
        let offline = matches!(off.as_deref(), Some("1" | "true" | "yes" | "on"));
        let certificates = variable("SSL_CERT_FILE").map(PathBuf::from);
        let patience = Patience::default();
        Ok(Self { endpoint, token, cache, certificates, offline, patience, cancel })
    }
}

/// A hub.
pub struct Hub {
    client: Client,
    cache: PathBuf,
    offline: bool,
}

/// A model that was found: its small files are here.
pub struct Found<'h> {
    hub: &'h Hub,
    cache: Cache,
    name: Name,
    commit: String,
    files: Vec<File>,
}

/// How far it is, over all files.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'p> {
    /// The file that is being got.
    pub file: &'p str,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all.
    pub all: u64,
}

impl Hub {
    /// A hub to ask.
    ///
    /// # Errors
    /// Certificates that can't be read.
    pub fn new(options: Options) -> Result<Self> {
        let Options { endpoint, token, cache, certificates, offline, patience, cancel } = options;
        let tls = trust::trusting(certificates.as_deref().filter(|_| !offline))?;
        Ok(Self { client: Client::new(endpoint, token, tls, patience, cancel), cache, offline })
    }

    /// The commit of a model that was got before.
    #[must_use]
    pub fn cached_commit(&self, name: &Name) -> Option<String> {
        Cache::new(&self.cache, &name.repository).commit(&name.revision)
    }

    /// Finds a model, and gets its hyperparameters and the index of its weights.
    ///
    /// # Errors
    /// A hub that can't be asked, refuses or says what can't be true; no such model, or several; without
    /// the hub, files that are not in the cache.
    pub fn find(&self, name: &Name) -> Result<Found<'_>> {
        if self.offline {
            return self.find_here(name);
        }
        let listing = listing::listing(&self.client, name)?;
        let cache = Cache::new(&self.cache, &name.repository);
        cache.set_commit(&name.revision, &listing.commit)?;
        self.found(name, cache, listing)
    }

    /// As [`Hub::find`], in the cache alone.
    ///
    /// # Errors
    /// A model of which not all is in the cache.
    pub fn find_here(&self, name: &Name) -> Result<Found<'_>> {
        let cache = Cache::new(&self.cache, &name.repository);
        let listing = offline(&cache, name)?;
        self.found(name, cache, listing).map_err(|error| not_all(name, &error))
    }

    fn found(&self, name: &Name, cache: Cache, listing: Listing) -> Result<Found<'_>> {
        let Listing { commit, files } = listing;
        let mut found = Found { hub: self, cache, name: name.clone(), commit, files: vec![] };
        let shards = match choose::index(&files).filter(|_| name.file.is_none()) {
            Some(index) => Some(found.shards(index)?),
            None => None,
        };
        found.files = choose::chosen(&files, name.file.as_deref(), shards, &name.repository)?;
        if let Some(config) = found.files.iter().find(|file| file.name == "config.json") {
            found.get(config, &mut |_| {})?;
        }
        Ok(found)
    }
}

/// What the cache has of a model.
fn offline(cache: &Cache, name: &Name) -> Result<Listing> {
    let Some(commit) = cache.commit(&name.revision) else {
        return Err(Error::Usage(format!("{name}: not in the cache; get it without --offline")));
    };
    let digest = || Digest::GitBlob(String::new());
    let file = |(name, size)| File { name, size, digest: digest() };
    let files = cache.files(&commit).into_iter().map(file).collect();
    Ok(Listing { commit, files })
}

fn not_all(name: &Name, error: &Error) -> Error {
    Error::Usage(format!(
        "{name}: not all of it is in the cache; get it without --offline ({error})"
    ))
}

impl Found<'_> {
    /// Its commit.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// Its hyperparameters, if it has any beside its weights.
    #[must_use]
    pub fn config(&self) -> Option<PathBuf> {
        let config = self.files.iter().find(|file| file.name == "config.json")?;
        Some(self.cache.snapshot(&self.commit).join(&config.name))
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Bytes that are still to be got.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.files.iter().filter(|file| !self.is_here(file)).map(|file| file.size).sum()
    }

    /// Gets what is missing. Returns the model's folder, or its file if one was asked for.
    ///
    /// # Errors
    /// No room on the disk; a hub that refuses, sends something else, or nothing for too long.
    pub fn fetch(&self, told: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
        self.check_room()?;
        let (mut done, all) = (0, self.bytes());
        for file in &self.files {
            self.get(file, &mut |here| {
                told(Progress { file: &file.name, done: done + here, all })
            })?;
            done += file.size;
        }
        let folder = self.cache.snapshot(&self.commit);
        let asked = self.name.file.as_ref().filter(|name| name.ends_with(".onnx"));
        if let Some(graph) = asked {
            return Ok(folder.join(graph));
        }
        // Models without hyperparameters beside them are files.
        let alone = self.config().is_none();
        let first = self.files.first().filter(|_| alone);
        Ok(first.map_or(folder.clone(), |file| folder.join(&file.name)))
    }

    fn is_here(&self, file: &File) -> bool {
        let path = self.cache.snapshot(&self.commit).join(&file.name);
        path.metadata().is_ok_and(|found| found.is_file() && found.len() == file.size)
    }

    /// Has the cache hold a file.
    fn get(&self, file: &File, told: &mut dyn FnMut(u64)) -> Result<PathBuf> {
        let path = self.cache.snapshot(&self.commit).join(&file.name);
        if self.is_here(file) {
            return Ok(path);
        }
        let (checksum, client) = (file.digest.as_str(), &self.hub.client);
        let blob = self.cache.blob(checksum);
        cache::create_folder_of(&blob)?;
        let _lock = self.cache.lock(checksum, &client.cancel)?;
        let is_whole = |path: &Path| path.metadata().is_ok_and(|found| found.len() == file.size);
        if !is_whole(&blob) {
            let (repository, name) = (&self.name.repository, escaped(&file.name, true));
            let url = client.url(&format!("{repository}/resolve/{}/{name}", self.commit));
            download::download(client, &url, file, &self.commit, &blob, told)?;
        }
        self.cache.link(&self.commit, &file.name, checksum)
    }

    /// The files that an index names.
    fn shards(&self, index: &File) -> Result<Vec<String>> {
        let path = self.get(index, &mut |_| {})?;
        choose::shards(&path, &input::read(&path, input::MAX_JSON_BYTES)?)
    }

    /// Refuses what the disk has no room for before any of it comes.
    fn check_room(&self) -> Result<()> {
        let (folder, missing) = (&self.hub.cache, self.missing_bytes());
        match free_bytes(folder) {
            Some(free) if free < missing => Err(Error::Usage(format!(
                "{}: {free} bytes are free, and {missing} are to come; make room, or set HF_HUB_CACHE \
                 to a folder on another disk",
                folder.display()
            ))),
            _ => Ok(()),
        }
    }
}

/// Bytes that may be written to the file system of a folder, where the operating system tells.
fn free_bytes(folder: &Path) -> Option<u64> {
    #[cfg(target_os = "linux")]
    return rustix::fs::statvfs(folder).ok().map(|found| found.f_bavail * found.f_frsize);
    #[cfg(not(target_os = "linux"))]
    return None::<u64>.filter(|_| folder.exists());
}
