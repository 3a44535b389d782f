//! Memory that could be had without pushing others out, where the system tells: Linux, and Android.

use std::path::{Path, PathBuf};

/// Bytes available to this process: of the machine, and within the limits of its control groups.
pub(super) fn bytes() -> Option<u64> {
    if cfg!(any(target_os = "linux", target_os = "android")) { under(Path::new("/")) } else { None }
}

/// The same of a system whose files lie under `root`.
fn under(root: &Path) -> Option<u64> {
    let of_machine = of_machine(&read(&root.join("proc/meminfo"))?)?;
    let of_groups = groups(root).into_iter().filter_map(|g| g.headroom());
    Some(of_groups.fold(of_machine, u64::min))
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

fn of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The directory of a control group that may limit memory.
#[derive(PartialEq, Eq, Debug)]
struct Group {
    dir: PathBuf,
    /// The names of its files.
    files: &'static Files,
}

#[derive(PartialEq, Eq, Debug)]
struct Files {
    /// Of several limits the lowest holds.
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of `memory.stat`: pages of files, which are given up before anything fails.
    reclaimable: [&'static str; 2],
}

const V2: Files = Files {
    // Beyond `high` nothing fails, but the group is slowed down until it has given up pages.
    limits: &["memory.max", "memory.high"],
    usage: "memory.current",
    reclaimable: ["inactive_file", "active_file"],
};
const V1: Files = Files {
    limits: &["memory.limit_in_bytes"],
    usage: "memory.usage_in_bytes",
    reclaimable: ["total_inactive_file", "total_active_file"],
};

impl Group {
    /// What may still be taken, where there is a limit.
    fn headroom(&self) -> Option<u64> {
        let number = |name: &str| -> Option<u64> { read(&self.dir.join(name))?.trim().parse().ok() };
        // No limit reads "max" in version 2 and some number beyond any memory in version 1.
        let limit = self.files.limits.iter().filter_map(|name| number(name)).min()?;
        let used = number(self.files.usage)?;
        let stat = read(&self.dir.join("memory.stat")).unwrap_or_default();
        let of_files = stat.lines().filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            if self.files.reclaimable.contains(&name) { value.trim().parse::<u64>().ok() } else { None }
        });
        Some(limit.saturating_sub(used.saturating_sub(of_files.sum())))
    }
}

/// The groups that the process is in, of version 2 and of version 1's memory controller, each with those above it.
fn groups(root: &Path) -> Vec<Group> {
    let (Some(of_process), Some(mounts)) =
        (read(&root.join("proc/self/cgroup")), read(&root.join("proc/self/mountinfo")))
    else {
        return Vec::new();
    };
    let mut groups = Vec::new();
    for line in of_process.lines() {
        // number:controllers:path; without a controller it is version 2.
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let files = match controllers {
            "" => &V2,
            _ if controllers.split(',').any(|c| c == "memory") => &V1,
            _ => continue,
        };
        let Some((mount_root, mount_point)) = mounts.lines().find_map(|m| mount_of(m, files)) else {
            continue;
        };
        // Seen from within a container the path may begin with what is mounted as the top, or lie outside of it.
        let below = Path::new(path).strip_prefix(mount_root).unwrap_or(Path::new(""));
        let below = if path.contains("..") { Path::new("") } else { below };
        let top = root.join(mount_point.trim_start_matches('/'));
        groups.extend(below.ancestors().map(|p| Group { dir: top.join(p), files }));
    }
    groups
}

/// Of a line of mountinfo what is mounted and where, when it is the hierarchy that has these files:
/// `36 35 0:29 ROOT POINT options... - TYPE source SUPER`.
fn mount_of<'a>(line: &'a str, files: &Files) -> Option<(&'a str, &'a str)> {
    let (mount, fs) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let place = (mount.next()?, mount.next()?);
    let mut fs = fs.split(' ');
    let ty = fs.next()?;
    let super_options = fs.nth(1).unwrap_or("");
    let is_it = match ty {
        "cgroup2" => *files == V2,
        "cgroup" => *files == V1 && super_options.split(',').any(|o| o == "memory"),
        _ => false,
    };
    is_it.then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       16000000 kB\nMemFree:  100 kB\nMemAvailable:    8000000 kB\n";
    const MACHINE: u64 = 8_000_000 * 1024;

    /// A system of these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files.iter().chain(&[("proc/meminfo", MEMINFO)]) {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    fn available(files: &[(&str, &str)]) -> Option<u64> {
        under(system(files).path())
    }

    const V2_MOUNT: (&str, &str) = (
        "proc/self/mountinfo",
        "22 27 0:21 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
    );

    #[test]
    fn the_machine_alone() {
        assert_eq!(available(&[]), Some(MACHINE));
        assert_eq!(under(tempfile::tempdir().unwrap().path()), None);
        assert_eq!(of_machine("MemFree: 10 kB\n"), None);
        // A group without a limit.
        let unlimited = [
            V2_MOUNT,
            ("proc/self/cgroup", "0::/user.slice\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.high", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "5000\n"),
        ];
        assert_eq!(available(&unlimited), Some(MACHINE));
    }

    #[test]
    fn version_2() {
        let of_process = ("proc/self/cgroup", "0::/a/b\n");
        let limited = [
            V2_MOUNT,
            of_process,
            ("sys/fs/cgroup/a/b/memory.max", "1000000000\n"),
            ("sys/fs/cgroup/a/b/memory.high", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "700000000\n"),
            // Of what is used, 200 MB can be given up.
            (
                "sys/fs/cgroup/a/b/memory.stat",
                "anon 500000000\ninactive_file 150000000\nactive_file 50000000\n",
            ),
        ];
        assert_eq!(available(&limited), Some(500_000_000));
        // A group above has a lower one.
        let above = [
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.high", "900000000\n"),
            ("sys/fs/cgroup/a/memory.current", "800000000\n"),
        ];
        assert_eq!(available(&[&limited[..], &above].concat()), Some(100_000_000));
        // More in use than the limit that was set since.
        let over = [("sys/fs/cgroup/a/b/memory.max", "100\n")];
        assert_eq!(available(&[&limited[..], &over].concat()), Some(0));
    }

    #[test]
    fn version_1_in_a_container() {
        // The path is the host's; the container sees its own group as the top.
        let files = [
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/c0ffee\n4:hugetlb,memory:/docker/c0ffee\n0::/\n"),
            (
                "proc/self/mountinfo",
                "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                 32 31 0:29 /docker/c0ffee /sys/fs/cgroup/cpu ro master:11 - cgroup cgroup rw,cpu,cpuacct\n\
                 35 31 0:32 /docker/c0ffee /sys/fs/cgroup/memory ro master:15 - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000\n"),
            (
                "sys/fs/cgroup/memory/memory.stat",
                "inactive_file 1\nactive_file 2\ntotal_inactive_file 200000\ntotal_active_file 300000\n",
            ),
        ];
        assert_eq!(available(&files), Some(1_000_000));
        // A process whose group lies outside of what is mounted.
        let outside = ("proc/self/cgroup", "4:memory:/../other\n");
        assert_eq!(available(&[&files[..], &[outside]].concat()), Some(1_000_000));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_system() {
        let bytes = bytes().unwrap();
        assert!(bytes > 1 << 20, "{bytes}");
        let total = read(Path::new("/proc/meminfo")).unwrap();
        let total = total.lines().find_map(|l| l.strip_prefix("MemTotal:")).unwrap();
        let total: u64 = total.trim().strip_suffix("kB").unwrap().trim().parse().unwrap();
        assert!(bytes <= total * 1024);
    }
}
