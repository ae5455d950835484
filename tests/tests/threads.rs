//! Where threads can't be started, fewer are used, and texts are the same.

use omex_tests::{Converted, Synthetic, json_of, omex, run};
use std::path::Path;
use std::process::Command;

/// The command in a group of processes that may have no thread but its first, where such groups can
/// be made.
fn without_threads(command: &Command) -> Option<Command> {
    let root = Path::new("/sys/fs/cgroup");
    let folder = if root.join("pids").is_dir() { root.join("pids") } else { root.to_owned() };
    let group = folder.join(format!("omex-test-threads-{}", std::process::id()));
    if std::fs::create_dir_all(&group).is_err()
        || std::fs::write(group.join("pids.max"), "1").is_err()
    {
        println!("skipped: groups of processes with a limit can't be made here");
        return None;
    }
    let mut limited = Command::new("sh");
    limited.arg("-c").arg("echo $$ > \"$0\" && exec \"$@\"").arg(group.join("cgroup.procs"));
    limited.arg(command.get_program()).args(command.get_args());
    Some(limited)
}

#[test]
fn every_way_of_running_works_on_one_thread() {
    let model = Converted::new(&Synthetic::new(512, 1408, 24, 8, 4, 8192, 512).in_q8_0(), None);
    let spills = ["--context", "640", "--kv", "f32", "--memory", "10MB"];
    for options in [
        &["--pages", "mmap"][..],
        &["--pages", "read", "--memory", "20MB"],
        &["--pages", "direct", "--memory", "20MB"],
        &["--pages", "uring", "--memory", "20MB"],
        &spills,
    ] {
        let mut command = omex(["run", model.path.to_str().unwrap(), "--ids", "1,5,9,700,8191"]);
        command.args(["--max-tokens", "4", "--threads", "4", "--json"]).args(options);
        let all = run(&mut command);
        // Not every file system and every kernel has these.
        if all.code == Some(1) && ["direct", "uring"].contains(&options[1]) {
            println!("skipped: {}", all.err);
            continue;
        }
        let Some(mut limited) = without_threads(&command) else { return };
        assert_eq!(json_of(&run(&mut limited))["ids"], json_of(&all)["ids"], "{options:?}");
    }
}
