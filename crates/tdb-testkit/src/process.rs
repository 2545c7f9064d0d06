//! What a process has used so far, where the system tells: Linux's `/proc`.

use std::fs;

/// Of `/proc/PID/stat`; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

fn read(pid: Option<u32>, file: &str) -> Option<String> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    fs::read_to_string(format!("/proc/{process}/{file}")).ok()
}

/// Seconds of processors, of all threads together, of a process or of this one.
pub fn processor_seconds(pid: Option<u32>) -> Option<f64> {
    let stat = read(pid, "stat")?;
    // The name in parentheses may hold spaces; what follows it starts with the third field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Memory in bytes, of a process or of this one, by its name in `/proc/PID/status`, such as `VmRSS` or `VmHWM`.
pub fn memory(pid: Option<u32>, name: &str) -> Option<u64> {
    let status = read(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? << 10)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_of_itself_and_of_others() {
        let own = std::process::id();
        assert!(processor_seconds(None) <= processor_seconds(Some(own)));
        // The system counts on each processor, some pages at a time, and tests beside this one may take more in between.
        let now = memory(Some(own), "VmRSS");
        assert!(now.is_some() && memory(None, "VmHWM").map(|most| most + (4 << 20)) >= now);
        assert_eq!((processor_seconds(Some(u32::MAX)), memory(None, "VmNothing")), (None, None));
    }
}
