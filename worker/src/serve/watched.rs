//! What is read from files and read again when they change: tokens and certificates are renewed while the server runs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// The value of files, as of a moment ago.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    read: fn(&[PathBuf]) -> Result<T, String>,
    /// The files are looked at no more often.
    every: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Stamps,
    looked: Instant,
}

/// Of each file: when it was written, and its size in bytes.
type Stamps = Vec<Option<(SystemTime, u64)>>;

impl<T> Watched<T> {
    /// `read` must name the file in its error.
    pub fn new(
        paths: Vec<PathBuf>,
        every: Duration,
        read: fn(&[PathBuf]) -> Result<T, String>,
    ) -> Result<Self, String> {
        let (stamps, value) = (stamps(&paths), Arc::new(read(&paths)?));
        let state = Mutex::new(State { value, stamps, looked: Instant::now() });
        Ok(Self { paths, read, every, state })
    }

    /// The newest value. One that cannot be read leaves the one before, and is logged.
    pub fn get(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.elapsed() >= self.every {
            state.looked = Instant::now();
            let found = stamps(&self.paths);
            if found != state.stamps {
                state.stamps = found;
                match (self.read)(&self.paths) {
                    Ok(value) => state.value = Arc::new(value),
                    Err(error) => tracing::error!(%error, "a changed file is not used"),
                }
            }
        }
        Arc::clone(&state.value)
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    let stamp = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.iter().map(stamp).collect()
}

/// The bytes of a file, or why not.
pub fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|cause| format!("{}: {cause}", path.display()))
}
