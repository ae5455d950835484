//! Which CPU this is.

/// What tells one CPU from another in `/proc/cpuinfo`, on x86, Arm and RISC-V.
const NAMES: [&str; 9] = [
    "model name",
    "cpu family",
    "model",
    "stepping",
    "CPU implementer",
    "CPU part",
    "CPU variant",
    "CPU revision",
    "uarch",
];

/// The CPU's model; empty where the operating system doesn't tell.
pub(super) fn model() -> String {
    model_in(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The lines that tell the model, each once: cores may differ.
fn model_in(cpuinfo: &str) -> String {
    let mut parts: Vec<String> = vec![];
    for (name, value) in cpuinfo.lines().filter_map(|line| line.split_once(':')) {
        let (name, value) = (name.trim(), value.trim());
        let part = if name == "model name" { value.into() } else { format!("{name} {value}") };
        if NAMES.contains(&name) && !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::model_in;

    #[test]
    fn a_model_is_named_by_what_every_kind_of_core_says() {
        let x86 = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\
                   stepping\t: 1\ncpu MHz\t\t: 2596.1\n";
        let model = "cpu family 25, model 17, AMD EPYC, stepping 1";
        assert_eq!(model_in(&format!("{x86}\n{x86}")), model);
        let arm = "processor\t: 0\nCPU part\t: 0xd05\n\nprocessor\t: 1\nCPU part\t: 0xd0b\n";
        assert_eq!(model_in(arm), "CPU part 0xd05, CPU part 0xd0b");
        assert_eq!(model_in(""), "");
    }
}
