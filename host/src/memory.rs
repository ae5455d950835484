//! How much memory this process may use.

/// Bytes that are free or could be, within the limits of this process's control group; `None` where
/// the system does not say.
#[must_use]
pub fn available() -> Option<u64> {
    let free = meminfo("MemAvailable:")?;
    Some(room_in_group().map_or(free, |room| room.min(free)))
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// What the control group leaves: its limit less what is used for good. Its page cache goes when
/// memory is wanted.
fn room_in_group() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let (root, limit, rss) = match controllers {
                "" => ("/sys/fs/cgroup", "memory.max", "anon "),
                _ if controllers.split(',').any(|c| c == "memory") => {
                    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "total_rss ")
                }
                _ => return None,
            };
            let read = |name: &str| std::fs::read_to_string(format!("{root}{path}/{name}")).ok();
            let limit: u64 = read(limit)?.trim().parse().ok()?;
            let stat = read("memory.stat")?;
            let used = stat.lines().find_map(|line| line.strip_prefix(rss))?;
            Some(limit.saturating_sub(used.trim().parse().ok()?))
        })
        .min()
}
