//! How much time of one core a package's graph takes, for benches/graphs.py: the median of so many inferences,
//! in microseconds.
//!
//! `graph MODEL.omex COUNT`

use cpu_time::ProcessTime;
use omex::session::{Session, SessionOptions};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [model, count] = &arguments[..] else {
        eprintln!("graph MODEL.omex COUNT");
        return ExitCode::from(2);
    };
    match measure(Path::new(model), count.parse().unwrap_or(1)) {
        Ok(median) => println!("{median:.2}"),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(model: &Path, count: usize) -> omex::Result<f64> {
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let mut session = Session::open(model, &options)?;
    let failed = session.failure();
    let mut engine = session.engine()?;
    let inputs: Vec<_> = engine.program().inputs().map(|port| port.name.to_owned()).collect();
    let mut times = vec![];
    for _ in 0..count.max(1) {
        // Inputs are written for each, as a peer's are.
        for name in &inputs {
            engine.input_mut(name).fill(1);
        }
        let start = ProcessTime::now();
        engine.infer().map_err(&failed)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
