//! Writes the resource's definition: `crds FOLDER`. With `--check` it only says whether the file is up to date.

use std::{error::Error, fs, path::PathBuf, process::ExitCode};

use millrace_crds::resource::{CRD_FILE, crd_yaml};

fn main() -> ExitCode {
    let (flags, folders): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|arg| arg.starts_with('-'));
    let check = flags.iter().any(|flag| flag == "--check");
    let ([folder], true) = (folders.as_slice(), flags.len() == usize::from(check)) else {
        eprintln!("usage: crds FOLDER [--check]");
        return ExitCode::from(2);
    };
    let file = PathBuf::from(folder).join(CRD_FILE);
    match run(&file, check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn run(file: &PathBuf, check: bool) -> Result<(), Box<dyn Error>> {
    let yaml = crd_yaml()?;
    if !check {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        return Ok(fs::write(file, yaml)?);
    }
    if fs::read_to_string(file)? == yaml { Ok(()) } else { Err("is stale; run `make crds`".into()) }
}
