//! Models come from a hub whole or not at all, whatever it and the connection do, and the token goes
//! to nobody else.

use omex::cancel::Cancel;
use omex::hub::{Hub as Client, Name, Options, Patience};
use omex::{Error, Result};
use omex_tests::hub::{COMMIT, Fault, Hub, REPOSITORY};
use omex_tests::{json_of, omex, run, shipped_model};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";

/// A hub with the model that ships.
fn hub() -> Hub {
    let read = |name: &'static str| (name, std::fs::read(shipped_model().join(name)).unwrap());
    let names = ["config.json", WEIGHTS, "tokenizer.json", "README.md"];
    Hub::new(&names.map(read), 100_000)
}

fn options(hub: &Hub, folder: &Path) -> Options {
    Options {
        endpoint: hub.address().to_owned(),
        token: Some("hf_secret".into()),
        cache: folder.join("hub"),
        certificates: None,
        offline: false,
        patience: Patience { attempts: 3, silence: Duration::from_millis(500) },
        cancel: Cancel::default(),
    }
}

/// Gets a model, as a library.
fn fetch(options: &Options, name: &str) -> Result<PathBuf> {
    Client::new(options.clone())?.find(&name.parse()?)?.fetch(&mut |_| {})
}

fn repository(folder: &Path) -> PathBuf {
    folder.join("hub/models--org--tiny")
}

/// The file with the weights that came so far.
fn partial(hub: &Hub, folder: &Path) -> PathBuf {
    repository(folder).join(format!("blobs/{}.incomplete", hub.checksum(WEIGHTS)))
}

fn is_whole(path: &Path) {
    let (found, expected) =
        (std::fs::read(path.join(WEIGHTS)), std::fs::read(shipped_model().join(WEIGHTS)));
    assert!(found.unwrap() == expected.unwrap(), "other bytes");
}

#[test]
fn a_model_lies_as_hugging_faces_programs_keep_it_and_only_the_hub_sees_the_token() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let options = options(&hub, folder.path());
    let path = fetch(&options, REPOSITORY).unwrap();
    is_whole(&path);
    let repository = repository(folder.path());
    assert_eq!(path, repository.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(repository.join("refs/main")).unwrap(), COMMIT);
    let target = format!("../../blobs/{}", hub.checksum(WEIGHTS));
    assert_eq!(std::fs::read_link(path.join(WEIGHTS)).unwrap(), Path::new(&target));
    assert!(!path.join("README.md").exists() && !partial(&hub, folder.path()).exists());
    let seen = hub.seen();
    assert_eq!(seen.iter().filter(|seen| seen.by_store).count(), 1);
    for seen in seen {
        let expected = (!seen.by_store).then_some("Bearer hf_secret");
        assert_eq!(seen.token.as_deref(), expected, "{}", seen.path);
    }
    // What is here is not got again; a file alone is a file; a name that has moved is followed.
    assert_eq!(fetch(&options, REPOSITORY).unwrap(), path);
    let file = fetch(&options, "org/tiny:README.md").unwrap();
    assert_eq!(
        std::fs::read(&file).unwrap(),
        std::fs::read(shipped_model().join("README.md")).unwrap()
    );
    assert!(!hub.seen().iter().any(|seen| seen.by_store));
    let old = Client::new(options)
        .unwrap()
        .find(&"org/old".parse().unwrap())
        .unwrap()
        .commit()
        .to_owned();
    assert_eq!(old, COMMIT);
}

#[test]
fn a_connection_that_is_cut_is_taken_up_where_it_was() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    hub.misbehave(&[Fault::Cut(100_000), Fault::Cut(200_000), Fault::Cut(1), Fault::Cut(0)]);
    is_whole(&fetch(&options(&hub, folder.path()), REPOSITORY).unwrap());
    let from: Vec<_> = hub.seen().iter().filter(|s| s.by_store).map(|s| s.from).collect();
    assert_eq!(from, [0, 100_000, 300_000, 300_001, 300_001]);
}

#[test]
fn a_store_that_sends_other_parts_than_were_asked_for_spoils_nothing() {
    for fault in [Fault::Whole, Fault::OtherPart, Fault::Status(416, "")] {
        let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
        hub.misbehave(&[Fault::Cut(100_000), fault]);
        is_whole(&fetch(&options(&hub, folder.path()), REPOSITORY).unwrap());
        let from: Vec<_> = hub.seen().iter().filter(|s| s.by_store).map(|s| s.from).collect();
        let again: &[usize] = if matches!(fault, Fault::Whole) { &[] } else { &[0] };
        assert_eq!(from, [&[0, 100_000], again].concat(), "{fault:?}");
    }
}

#[test]
fn what_stays_silent_or_breaks_off_is_given_up_and_kept() {
    for fault in [Fault::Cut(0), Fault::Silence(0), Fault::Status(503, ""), Fault::Status(403, "")]
    {
        let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
        hub.misbehave(&[Fault::Cut(70_000), fault, fault, fault, fault]);
        let error = fetch(&options(&hub, folder.path()), REPOSITORY).unwrap_err().to_string();
        assert!(error.contains("tried 3 times") && error.contains("is kept"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(partial(&hub, folder.path()).metadata().unwrap().len(), 70_000);
        is_whole(&fetch(&options(&hub, folder.path()), REPOSITORY).unwrap());
    }
}

#[test]
fn other_bytes_than_the_checksum_says_are_refused_and_removed() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let options = options(&hub, folder.path());
    for (fault, said) in [(Fault::Damage, "checksum"), (Fault::More, "more than the 779800 bytes")]
    {
        hub.misbehave(&[fault]);
        let error = fetch(&options, REPOSITORY).unwrap_err().to_string();
        assert!(error.contains(said) && error.contains("nothing of it is kept"), "{error}");
        let snapshot = repository(folder.path()).join("snapshots").join(COMMIT);
        assert!(!snapshot.join(WEIGHTS).exists());
        let kept = partial(&hub, folder.path()).metadata().map_or(0, |found| found.len());
        assert_eq!(kept, 0);
    }
    // A part that was damaged on the disk is got again.
    hub.misbehave(&[Fault::Cut(100_000), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)]);
    fetch(&options, REPOSITORY).unwrap_err();
    let mut came = std::fs::read(partial(&hub, folder.path())).unwrap();
    came[50_000] ^= 1;
    std::fs::write(partial(&hub, folder.path()), came).unwrap();
    is_whole(&fetch(&options, REPOSITORY).unwrap());
    // As are one that is too long, and a small file, which git's own checksum knows.
    hub.change("README.md", |file| file.bytes[0] ^= 1);
    let error = fetch(&options, "org/tiny:README.md").unwrap_err().to_string();
    assert!(error.contains("checksum"), "{error}");
}

#[test]
fn refusals_say_what_to_do_and_passing_ones_are_tried_again() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let with_token = options(&hub, folder.path());
    let without = Options { token: None, ..with_token.clone() };
    let gated = "X-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted\r\n";
    let cases: [(_, _, &[&str]); 6] = [
        (&without, (401, ""), &["private or gated", "HF_TOKEN"]),
        (&with_token, (401, ""), &["HF_TOKEN is not valid"]),
        (&with_token, (403, gated), &["restricted", "ask for access"]),
        (&with_token, (404, "X-Error-Code: RepoNotFound\r\n"), &["check the model's name"]),
        (&with_token, (404, "X-Error-Code: RevisionNotFound\r\n"), &["no such revision"]),
        (&with_token, (302, "Location: file:///etc/passwd\r\n"), &["sends on to", "HF_ENDPOINT"]),
    ];
    for (options, answer, expected) in cases {
        hub.refuse(&[answer]);
        let error = fetch(options, REPOSITORY).unwrap_err();
        assert!(matches!(error, Error::Hub { .. }), "{error:?}");
        let error = error.to_string();
        assert!(expected.iter().all(|said| error.contains(said)), "{error}");
        assert!(error.contains("/api/models/org/tiny"), "{error}");
    }
    let file = folder.path().join("none.pem");
    std::fs::write(&file, "none").unwrap();
    let certificates = Some(file);
    let error = fetch(&Options { certificates, ..with_token.clone() }, REPOSITORY).unwrap_err();
    assert!(error.to_string().contains("none.pem: the file: found no certificate"), "{error}");
    let round = (302, "Location: /api/models/org/tiny/revision/main\r\n");
    hub.refuse(&[round; 9]);
    let error = fetch(&with_token, REPOSITORY).unwrap_err().to_string();
    assert!(error.contains("again and again"), "{error}");
    hub.refuse(&[(429, "Retry-After: 1\r\n"), (500, "")]);
    let start = Instant::now();
    is_whole(&fetch(&with_token, REPOSITORY).unwrap());
    assert!(start.elapsed() > Duration::from_secs(1), "it asked to be left alone for a second");
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = ("config.json", b"{}".to_vec());
    for name in ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", ".."] {
        let hub = Hub::new(&[config.clone(), (name, vec![1])], 100);
        let error = fetch(&options(&hub, folder.path()), REPOSITORY).unwrap_err().to_string();
        assert!(error.contains("a file is called"), "{error}");
        assert!(!hub.seen().iter().any(|seen| seen.path.contains("resolve")));
    }
    for shard in ["../evil", "/etc/evil", "a/evil", ".."] {
        let index = format!(r#"{{ "weight_map": {{ "w": "{shard}" }} }}"#).into_bytes();
        let index = ("model.safetensors.index.json", index);
        let hub = Hub::new(&[config.clone(), index], 1000);
        let error = fetch(&options(&hub, folder.path()), REPOSITORY).unwrap_err().to_string();
        assert!(error.contains("weight_map.w"), "{error}");
    }
    let hub = hub();
    hub.change(WEIGHTS, |file| file.checksum = "../".repeat(21) + "x");
    let error = fetch(&options(&hub, folder.path()), REPOSITORY).unwrap_err().to_string();
    assert!(error.contains("is not described"), "{error}");
    for name in ["../..", "org/tiny:../x", "org/tiny@../main"] {
        assert!(name.parse::<Name>().is_err(), "{name}");
    }
    let names = |folder: &Path| {
        folder.read_dir().unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
    };
    assert_eq!(names(folder.path()), ["hub"]);
}

#[test]
fn offline_what_is_in_the_cache_has_to_do() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let online = options(&hub, folder.path());
    let offline = Options { offline: true, ..online.clone() };
    let error = fetch(&offline, REPOSITORY).unwrap_err().to_string();
    assert!(error.contains("not in the cache") && error.contains("without --offline"), "{error}");
    Client::new(online.clone()).unwrap().find(&REPOSITORY.parse().unwrap()).unwrap();
    let error = fetch(&offline, REPOSITORY).unwrap_err().to_string();
    assert!(error.contains("not all of it is in the cache"), "{error}");
    let path = fetch(&online, REPOSITORY).unwrap();
    let _ = hub.seen();
    assert_eq!(fetch(&offline, REPOSITORY).unwrap(), path);
    assert_eq!(fetch(&offline, &format!("{REPOSITORY}@{COMMIT}")).unwrap(), path);
    assert!(hub.seen().is_empty(), "nobody is asked");
    // A link whose blob is gone is no file.
    std::fs::remove_file(path.join(WEIGHTS).canonicalize().unwrap()).unwrap();
    fetch(&offline, REPOSITORY).unwrap_err();
}

#[test]
fn shards_are_got_as_the_index_says() {
    let weights = |tensor: &str| format!(r#""{tensor}": "model-{tensor}.safetensors""#);
    let index = format!(r#"{{ "weight_map": {{ {}, {} }} }}"#, weights("a"), weights("b"));
    let files = [
        ("config.json", b"{}".to_vec()),
        ("model.safetensors.index.json", index.into_bytes()),
        ("model-a.safetensors", vec![1; 200]),
        ("model-b.safetensors", vec![2; 300]),
        ("other.safetensors", vec![3; 400]),
    ];
    let (hub, folder) = (Hub::new(&files, 150), tempfile::tempdir().unwrap());
    let options = options(&hub, folder.path());
    let path = fetch(&options, REPOSITORY).unwrap();
    assert_eq!(std::fs::read(path.join("model-b.safetensors")).unwrap(), [2; 300]);
    assert!(!path.join("other.safetensors").exists());
    let hub = Hub::new(&files[..3], 150);
    let error =
        fetch(&Options { endpoint: hub.address().into(), ..options }, REPOSITORY).unwrap_err();
    assert!(error.to_string().contains("model-b.safetensors: named by the index"), "{error}");
}

/// A folder of caches in which this machine is measured, which takes long.
fn caches() -> TempDir {
    static PROFILE: OnceLock<String> = OnceLock::new();
    let profile =
        PROFILE.get_or_init(|| json_of(&run(&mut omex(["profile", "--json"]))).to_string());
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("omex")).unwrap();
    std::fs::write(folder.path().join("omex/profile.json"), profile).unwrap();
    folder
}

/// The command, with this hub and these caches.
fn at(hub: &Hub, folder: &Path, args: &[&str]) -> Command {
    let mut command = omex(args);
    command.env("HF_ENDPOINT", hub.address()).env("HF_HUB_CACHE", folder.join("hub"));
    command.env("XDG_CACHE_HOME", folder).env("NO_PROXY", "127.0.0.1").current_dir(folder);
    ["HF_HOME", "HF_TOKEN", "HF_HUB_OFFLINE", "SSL_CERT_FILE"]
        .iter()
        .for_each(|name| _ = command.env_remove(name));
    command
}

#[test]
fn a_model_is_planned_got_and_run_by_its_name() {
    let (hub, folder) = (hub(), caches());
    let here = |args: &[&str]| run(&mut at(&hub, folder.path(), args));
    let store = || hub.seen().iter().filter(|seen| seen.by_store).count();
    let planned = here(&["plan", "hf:org/tiny", "--memory", "1MB"]);
    assert!(planned.code == Some(0) && planned.out.contains("decode"), "{planned:?}");
    let dry = here(&["pull", "org/tiny", "--dry-run", "--json"]);
    let said = json_of(&dry);
    assert!(said["decode_tok_s"].as_f64() > Some(0.0) && said["path"].is_null(), "{said}");
    assert_eq!((&said["missing_bytes"], store()), (&(779_800 + 19_623).into(), 0));
    assert!(dry.err.contains("3 files, 800 KB") && dry.err.contains("as int8: "), "{dry:?}");
    let text = here(&["run", "hf:org/tiny", "Once", "--max-tokens", "8"]);
    assert!(text.code == Some(0) && text.out.starts_with("Once"), "{text:?}");
    assert_eq!(store(), 1);
    // From now on, nobody is asked.
    let again = here(&["run", "hf:org/tiny", "Once", "--max-tokens", "8", "--offline"]);
    assert_eq!((&again.out, again.err.as_str()), (&text.out, ""), "{again:?}");
    let drafted = ["run", "hf:org/tiny", "Once", "--max-tokens", "8", "--draft", "hf:org/tiny"];
    assert_eq!(here(&drafted).out, text.out);
    assert!(here(&["inspect", "hf:org/tiny"]).out.contains("tiny"));
    assert!(hub.seen().is_empty());
    let pulled = json_of(&here(&["pull", "hf:org/tiny", "--offline", "--json"]));
    assert!(pulled["path"].as_str().unwrap().ends_with(COMMIT), "{pulled}");
    let converted =
        here(&["convert", "--model-path", "hf:org/tiny", "--output-dir", "t.omex", "--offline"]);
    assert_eq!(converted.code, Some(0), "{converted:?}");
    // Where the hub refuses, what is here has to do.
    hub.refuse(&[(404, "")]);
    let converted = here(&["convert", "hf:org/tiny", "--output-dir", "u.omex", "--no-check"]);
    assert!(converted.code == Some(0), "{converted:?}");
    assert!(converted.err.contains("the cache is used"), "{converted:?}");
    let unknown = here(&["run", "hf:org/none", "--offline", "--json"]);
    assert!(unknown.code == Some(1) || unknown.code == Some(2), "{unknown:?}");
    assert!(unknown.out.contains("not in the cache"), "{unknown:?}");
}

#[test]
fn a_model_is_loaded_for_a_device() {
    let (hub, folder) = (hub(), caches());
    let here = |args: &[&str]| run(&mut at(&hub, folder.path(), args));
    let load = [
        "load-model",
        "org/tiny",
        "--use-embedded-optimizations",
        "--memory-strategy",
        "streaming",
    ];
    let loaded = here(&[&load[..], &["--device", "raspberry-pi-5"]].concat());
    assert_eq!(loaded.code, Some(0), "{loaded:?}");
    assert!(
        loaded.out.contains("ring of") && loaded.out.contains("omex run hf:org/tiny"),
        "{loaded:?}"
    );
    let said = json_of(&here(&[&load[..], &["--memory", "1MB", "--json"]].concat()));
    assert_eq!(said["quantization"], "int4+4", "{said}");
    assert!(said["total"].as_u64() <= Some(1_000_000), "{said}");
    let said = json_of(&here(&["load-model", "org/tiny", "--dry-run", "--json"]));
    assert!(said["quantization"] == "int8" && said["path"].is_null(), "{said}");
    let unknown = here(&["load-model", "--size", "671B"]);
    assert!(unknown.code == Some(2) && unknown.err.contains("72B"), "{unknown:?}");
}

#[test]
fn an_interrupted_download_ends_at_once_and_goes_on_later() {
    let (hub, folder) = (hub(), caches());
    hub.misbehave(&[Fault::Silence(300_000)]);
    let mut pull = at(&hub, folder.path(), &["pull", "org/tiny"]);
    let mut process = pull.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let partial = partial(&hub, folder.path());
    let start = Instant::now();
    while partial.metadata().map_or(0, |found| found.len()) < 300_000 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(10));
    }
    let interrupted = Command::new("kill").args(["-INT", &process.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let asked = Instant::now();
    assert_eq!(process.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(2), "it ends at once");
    let pulled = run(&mut at(&hub, folder.path(), &["pull", "org/tiny"]));
    is_whole(Path::new(pulled.out.trim()));
    let from: Vec<_> = hub.seen().iter().filter(|s| s.by_store).map(|s| s.from).collect();
    assert_eq!(from, [0, 300_000]);
}

#[test]
fn two_at_once_get_one_copy() {
    let (hub, folder) = (hub(), tempfile::tempdir().unwrap());
    let options = options(&hub, folder.path());
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| fetch(&options, REPOSITORY).unwrap()));
        both.into_iter().for_each(|path| is_whole(&path.join().unwrap()));
    });
    assert_eq!(hub.seen().iter().filter(|seen| seen.by_store).count(), 1);
}
