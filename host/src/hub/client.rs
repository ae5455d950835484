//! Requests to a hub and to where it sends us: what is asked, how long it may take, and who may see the
//! token.

use crate::cancel::Cancel;
use crate::printable::printable;
use crate::{Error, Result};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::http::{HeaderMap, Uri};
use ureq::tls::TlsConfig;

/// Bytes that arrive at once.
const PIECE: usize = 128 << 10;
/// Pieces that may wait for the disk.
const PIECES: usize = 4;
/// How long a wait may leave a cancellation unseen.
const INTERVAL: Duration = Duration::from_millis(50);
/// The most places that a request is sent on to.
const MAX_REDIRECTS: u32 = 8;
/// The first wait before a request is sent again; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest of these, and the longest that a hub may ask for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How much is borne with.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How often a request that brings nothing is sent.
    pub attempts: u32,
    /// How long nothing may come.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { attempts: 8, silence: Duration::from_secs(30) }
    }
}

/// Sends requests.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
    patience: Patience,
    pub(super) cancel: Cancel,
}

/// Why a request brought nothing.
pub(super) enum Failure {
    /// It may bring something when it is sent again, perhaps not before some time.
    Passing(String, Option<Duration>),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// An answer whose body is still to come.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Of the hub itself.
    pub(super) first: HeaderMap,
    /// Of whoever sends the body.
    pub(super) last: HeaderMap,
    body: Receiver<Message>,
    cancel: Cancel,
}

enum Message {
    Head(u16, Box<HeaderMap>),
    Piece(Vec<u8>),
    End,
    Failed(String),
}

impl Client {
    pub(super) fn new(
        endpoint: String,
        token: Option<String>,
        tls: TlsConfig,
        patience: Patience,
        cancel: Cancel,
    ) -> Self {
        let silence = Some(patience.silence);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            // Who may see the token is decided here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("omex/", env!("CARGO_PKG_VERSION")))
            // Lengths and places are of the file itself.
            .accept_encoding("identity")
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence);
        Self { agent: config.build().new_agent(), endpoint, token, patience, cancel }
    }

    /// The hub's address with this path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Asks for what is at an address, from a byte on, until somebody has it.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        let (mut at, mut first) = (url.to_owned(), None);
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.exchange(&at, from)?;
            let first = first.get_or_insert_with(|| answer.last.clone());
            if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
                return self.check(&at, Answer { first: first.clone(), ..answer });
            }
            let next = header(&answer.last, "location").unwrap_or_default();
            at = resolved(&at, next)
                .ok_or_else(|| refused(&at, format!("sends on to \"{next}\"")))?;
        }
        Err(refused(url, "is sent on again and again".into()).into())
    }

    /// All of a short answer.
    pub(super) fn read(&self, url: &str, most: usize) -> Result<Vec<u8>> {
        let mut attempts = Attempts::new(self, url);
        loop {
            let failure = match self.get(url, 0).and_then(|answer| all(answer, url, most)) {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => failure,
            };
            attempts.again(failure)?;
        }
    }

    /// Sends one request, from a thread of its own: a read can't be interrupted, but left behind.
    fn exchange(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        let mut request = ureq::http::Request::get(url);
        if let Some(token) = self.token.as_ref().filter(|_| is_same_place(url, &self.endpoint)) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        let request = request.body(()).map_err(|e| refused(url, format!("is no address: {e}")))?;
        let (agent, (sender, body)) = (self.agent.clone(), sync_channel(PIECES));
        let started = std::thread::Builder::new().spawn(move || {
            let failed = |error: ureq::Error| Message::Failed(error.to_string());
            let last = agent.run(request).map_or_else(failed, |response| send(response, &sender));
            // Nobody waits any more once the work was asked to stop.
            let _ = sender.send(last);
        });
        started.map_err(|e| Failure::Passing(format!("no thread could be started: {e}"), None))?;
        let (cancel, none) = (self.cancel.clone(), HeaderMap::new());
        let mut answer = Answer { status: 0, first: none.clone(), last: none, body, cancel };
        match answer.receive().map_err(|failure| untrusted(url, failure))? {
            Message::Head(status, headers) => (answer.status, answer.last) = (status, *headers),
            _ => return Err(Failure::Passing("the connection was closed".into(), None)),
        }
        Ok(answer)
    }

    /// Refuses an answer that is none, in the hub's words and with what to do about it.
    fn check(&self, url: &str, answer: Answer) -> Result<Answer, Failure> {
        let is_hub = is_same_place(url, &self.endpoint);
        let said = header(&answer.last, "x-error-message").map(|said| format!(": {said}"));
        let reason = format!("answers {}{}", answer.status, said.unwrap_or_default());
        let remedy = match answer.status {
            200 | 206 => return Ok(answer),
            408 | 429 | 500..=599 => {
                return Err(Failure::Passing(reason, retry_after(&answer.last)));
            }
            // There is no such part: the file is asked for anew.
            416 => return Ok(answer),
            // A signed address that is too old; the hub gives a new one.
            400..=499 if !is_hub => return Err(Failure::Passing(reason, None)),
            401 if self.token.is_none() => {
                "there is no such model, or it is private or gated: check its name, or set HF_TOKEN"
            }
            401 => "HF_TOKEN is not valid, or there is no such model: check both",
            403 => "ask for access on the model's page, with the account of HF_TOKEN",
            404 => match header(&answer.last, "x-error-code") {
                Some("RevisionNotFound") => "there is no such revision: check what is behind @",
                Some("EntryNotFound") => "there is no such file: check what is behind :",
                _ => "check the model's name",
            },
            _ => "check HF_ENDPOINT and the model's name",
        };
        Err(Failure::Final(hub_error(url, reason, remedy)))
    }
}

/// Tries again, ever later, for as long as that is worth it.
pub(super) struct Attempts<'c> {
    client: &'c Client,
    url: &'c str,
    made: u32,
}

impl<'c> Attempts<'c> {
    pub(super) fn new(client: &'c Client, url: &'c str) -> Self {
        Self { client, url, made: 0 }
    }

    /// Something came: what fails from now on fails for the first time.
    pub(super) fn succeeded(&mut self) {
        self.made = 0;
    }

    /// Waits before the next attempt, or says why there is none.
    pub(super) fn again(&mut self, failure: Failure) -> Result<()> {
        let (reason, after) = match failure {
            Failure::Passing(reason, after) => (reason, after),
            Failure::Final(error) => return Err(error),
        };
        self.made += 1;
        if self.made >= self.client.patience.attempts {
            let reason = format!("{reason} (tried {} times)", self.made);
            let remedy = "check the connection and try again: what has come is kept";
            return Err(hub_error(self.url, reason, remedy));
        }
        let wait = after.unwrap_or(FIRST_WAIT * (1 << (self.made - 1).min(16))).min(MAX_WAIT);
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.client.cancel.check()?;
            std::thread::sleep(left.min(INTERVAL));
        }
        Ok(())
    }
}

impl Answer {
    /// The next bytes; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self.receive()? {
            Message::Piece(bytes) => Ok(Some(bytes)),
            _ => Ok(None),
        }
    }

    fn receive(&self) -> Result<Message, Failure> {
        loop {
            self.cancel.check()?;
            match self.body.recv_timeout(INTERVAL) {
                Ok(Message::Failed(reason)) => return Err(Failure::Passing(reason, None)),
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::Passing("the connection was closed".into(), None));
                }
            }
        }
    }
}

/// Sends on what comes of an answer. Returns what is to be sent last.
fn send(response: ureq::http::Response<ureq::Body>, to: &SyncSender<Message>) -> Message {
    use std::io::Read;
    let (head, body) = response.into_parts();
    let mut next = Message::Head(head.status.as_u16(), Box::new(head.headers));
    let mut reader = body.into_reader();
    // Whoever has enough stops receiving.
    while to.send(next).is_ok() {
        let mut piece = vec![0; PIECE];
        next = match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => {
                piece.truncate(read);
                Message::Piece(piece)
            }
            Err(error) => return Message::Failed(error.to_string()),
        };
    }
    Message::End
}

fn all(mut answer: Answer, url: &str, most: usize) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![];
    while let Some(piece) = answer.next()? {
        bytes.extend(piece);
        if bytes.len() > most {
            return Err(refused(url, format!("answers more than {most} bytes")).into());
        }
    }
    Ok(bytes)
}

/// A header's text.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    Some(Duration::from_secs(header(headers, "retry-after")?.parse().ok()?))
}

/// What is wrong with a hub's answer.
pub(super) fn hub_error(url: &str, reason: String, remedy: &str) -> Error {
    // Signed addresses carry secrets behind the question mark.
    let url = url.split('?').next().unwrap_or(url).to_owned();
    Error::Hub { url: printable(url), reason: printable(reason), remedy: remedy.to_owned() }
}

/// A certificate that nobody vouches for is the same the next time.
fn untrusted(url: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Passing(reason, _) if reason.contains("certificate") => {
            let remedy = "check the clock; where a network looks into its traffic, set SSL_CERT_FILE to \
                          its certificates";
            Failure::Final(hub_error(url, reason, remedy))
        }
        failure => failure,
    }
}

fn refused(url: &str, reason: String) -> Error {
    hub_error(url, reason, "check HF_ENDPOINT")
}

/// Scheme, host and port.
fn place(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let port = uri.port_u16().unwrap_or(usual);
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

fn is_same_place(one: &str, other: &str) -> bool {
    place(one).is_some() && place(one) == place(other)
}

/// Where an answer sends on to: an address or a path; never from TLS to none.
fn resolved(from: &str, location: &str) -> Option<String> {
    let (scheme, rest) = from.split_once("://")?;
    let host = rest.split('/').next()?;
    let url = match location {
        path if path.starts_with("//") => format!("{scheme}:{path}"),
        path if path.starts_with('/') => format!("{scheme}://{host}{path}"),
        url => url.to_owned(),
    };
    let is_kept = place(&url)?.0 == "https" || place(from)?.0 == "http";
    is_kept.then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_for_the_hubs_own_place() {
        let hub = "https://huggingface.co";
        assert!(is_same_place("https://huggingface.co/a/b", hub));
        assert!(is_same_place("https://HuggingFace.co:443/a", hub));
        for other in [
            "https://huggingface.co.evil.org/a",
            "https://cdn.huggingface.co/a",
            "https://huggingface.co@evil.org/a",
            "https://evil.org/https://huggingface.co",
            "http://huggingface.co/a",
            "https://huggingface.co:444/a",
            "ftp://huggingface.co/a",
            "huggingface.co/a",
        ] {
            assert!(!is_same_place(other, hub), "{other}");
        }
    }

    #[test]
    fn redirects_lead_to_addresses_and_paths_and_not_out_of_tls() {
        let from = "https://hub/a/b?c";
        let resolved = |location| resolved(from, location);
        assert_eq!(resolved("/d").as_deref(), Some("https://hub/d"));
        assert_eq!(resolved("//cdn/d").as_deref(), Some("https://cdn/d"));
        assert_eq!(resolved("https://cdn/d?e").as_deref(), Some("https://cdn/d?e"));
        for wrong in ["http://hub/d", "file:///etc/passwd", "d", ""] {
            assert_eq!(resolved(wrong), None, "{wrong}");
        }
    }
}
