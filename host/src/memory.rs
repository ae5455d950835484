//! How much memory this process may use.

use std::path::{Path, PathBuf};

/// Bytes that are free or could be, within the limits of this process's control groups; `None` where
/// the system does not say.
#[must_use]
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// Nearly all of what is available: what is planned with where no budget is given.
#[must_use]
pub fn usable() -> Option<u64> {
    available().map(|bytes| bytes / 10 * 9)
}

/// The most bytes that this process had resident at a time, those of mapped files included; `None`
/// where the system does not say.
#[must_use]
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    number_behind(&status, "VmHWM:").map(|kib| kib << 10)
}

/// As [`available`], by what the files of a system say that lie under `root`.
fn available_under(root: &Path) -> Option<u64> {
    let free = meminfo(root, "MemAvailable:")?;
    Some(room_in_groups(root).map_or(free, |room| room.min(free)))
}

fn meminfo(root: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    number_behind(&text, name).map(|kib| kib << 10)
}

/// The number in the line that begins with `name`.
fn number_behind(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A version of control groups: the names of what it says of memory.
struct Groups {
    file_system: &'static str,
    /// Limits, each of which holds.
    limits: &'static [&'static str],
    /// What is used for good, in `memory.stat`. Page cache goes when memory is wanted.
    used: &'static [&'static str],
}

const VERSION_1: Groups = Groups {
    file_system: "cgroup",
    limits: &["memory.limit_in_bytes"],
    used: &["total_rss ", "total_shmem "],
};
const VERSION_2: Groups = Groups {
    file_system: "cgroup2",
    limits: &["memory.max", "memory.high"],
    used: &["anon ", "shmem "],
};

/// What the control groups leave: of each group that this process is in, the limit less what is
/// used. Limits nest, so every group above its own has a say.
fn room_in_groups(root: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(root.join(name)).ok();
    let (own, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    let groups = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some((VERSION_2, path)),
            _ if controllers.split(',').any(|c| c == "memory") => Some((VERSION_1, path)),
            _ => None,
        }
    });
    let rooms = groups.flat_map(|(version, path)| {
        let mounts: Vec<_> = mounts.lines().filter_map(|line| mount(line, &version)).collect();
        let folders = mounts.into_iter().flat_map(|mount| folders(root, &mount, path));
        folders.filter_map(|folder| room(&folder, &version)).collect::<Vec<_>>()
    });
    rooms.min()
}

/// Where groups are mounted, and which group is seen there: a container sees its own.
struct Mount {
    group: String,
    point: String,
}

/// A line of `mountinfo`, if it is where a version's groups of memory are mounted.
fn mount(line: &str, version: &Groups) -> Option<Mount> {
    let (place, system) = line.split_once(" - ")?;
    let mut system = system.split(' ');
    let (kind, options) = (system.next()?, system.nth(1).unwrap_or_default());
    let of_memory = kind == "cgroup2" || options.split(',').any(|option| option == "memory");
    if kind != version.file_system || !of_memory {
        return None;
    }
    let mut fields = place.split(' ').skip(3).map(unescaped);
    Some(Mount { group: fields.next()?, point: fields.next()? })
}

/// A path as `mountinfo` writes it, which has codes for blanks.
fn unescaped(path: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(path.to_owned(), |path, (code, blank)| path.replace(code, blank))
}

/// The folders of a group and of all above it, as far as a mount shows them. Where it does not show
/// the group, as in a container whose path is the host's, the mount is the group.
fn folders(root: &Path, mount: &Mount, path: &str) -> Vec<PathBuf> {
    let relative = |path: &str| path.trim_start_matches('/').to_owned();
    let top = root.join(relative(&mount.point));
    let group = Path::new(path).strip_prefix(&mount.group).unwrap_or(Path::new(path));
    let own = top.join(relative(&group.to_string_lossy()));
    let own = if own.is_dir() { own } else { top.clone() };
    own.ancestors().take_while(|folder| folder.starts_with(&top)).map(Path::to_owned).collect()
}

/// What a group leaves; `None` without a limit.
fn room(folder: &Path, version: &Groups) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let limits = version.limits.iter().filter_map(|name| read(name)?.trim().parse::<u64>().ok());
    let limit = limits.min()?;
    let stat = read("memory.stat").unwrap_or_default();
    let used: u64 = version.used.iter().filter_map(|name| number_behind(&stat, name)).sum();
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A system with 1,000 MiB free, and files besides.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let meminfo = format!("MemTotal: 9 kB\nMemAvailable: {} kB\n", 1000 << 10);
        for (name, text) in [("proc/meminfo", meminfo.as_str())].iter().chain(files) {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn available_mib(files: &[(&str, &str)]) -> u64 {
        available_under(system(files).path()).unwrap() / MIB
    }

    const HOST_1: (&str, &str) = (
        "proc/self/mountinfo",
        "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
         35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
    );
    const OWN_1: (&str, &str) = ("proc/self/cgroup", "5:cpu:/\n4:memory:/pod/child\n");

    #[test]
    fn limits_of_groups_above_count_less_what_these_use() {
        assert_eq!(available_mib(&[]), 1000);
        let own = ("sys/fs/cgroup/memory/pod/child/memory.limit_in_bytes", "524288000\n");
        assert_eq!(available_mib(&[HOST_1, OWN_1, own]), 500);
        let above = ("sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "104857600\n");
        assert_eq!(available_mib(&[HOST_1, OWN_1, own, above]), 100);
        let used = "total_cache 999999999\ntotal_rss 31457280\ntotal_shmem 10485760\n";
        let used = ("sys/fs/cgroup/memory/pod/memory.stat", used);
        assert_eq!(available_mib(&[HOST_1, OWN_1, own, above, used]), 60);
    }

    #[test]
    fn a_container_on_version_1_sees_its_group_as_the_mount() {
        let mounted = "35 31 0:32 /pod/child /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let limit = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
        for own in [OWN_1, ("proc/self/cgroup", "4:memory:/docker/other\n")] {
            assert_eq!(available_mib(&[("proc/self/mountinfo", mounted), own, limit]), 100);
        }
    }

    #[test]
    fn version_2_has_two_limits_and_a_namespace_its_own_root() {
        let host = ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let own = ("proc/self/cgroup", "0::/user.slice/app.scope\n");
        let none = ("sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n");
        assert_eq!(available_mib(&[host, own, none]), 1000);
        let slice = ("sys/fs/cgroup/user.slice/memory.max", "209715200\n");
        assert_eq!(available_mib(&[host, own, none, slice]), 200);
        let high = ("sys/fs/cgroup/user.slice/memory.high", "104857600\n");
        assert_eq!(available_mib(&[host, own, none, slice, high]), 100);
        let inside = ("proc/self/cgroup", "0::/\n");
        let limit = ("sys/fs/cgroup/memory.max", "104857600\n");
        assert_eq!(available_mib(&[host, inside, limit]), 100);
    }

    #[test]
    fn mounts_with_blanks_in_their_names_are_found() {
        let mounted = "35 31 0:32 / /my\\040groups rw - cgroup2 none rw\n";
        let own = ("proc/self/cgroup", "0::/\n");
        let limit = ("my groups/memory.max", "104857600\n");
        assert_eq!(available_mib(&[("proc/self/mountinfo", mounted), own, limit]), 100);
    }
}
