//! Files: what rustix lacks.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Asks the kernel to begin writing out these bytes of a file (`length` 0: up to its end) and does not wait: a later fdatasync
/// finds most of its work done. Promises nothing by itself: neither metadata nor the disk's cache are flushed.
pub fn start_writeback(file: impl AsFd, offset: u64, length: u64) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let offset = i64::try_from(offset).map_err(out_of_range)?;
    let length = i64::try_from(length).map_err(out_of_range)?;
    // SAFETY: sync_file_range takes no pointer; the descriptor is borrowed, so it is open for the call.
    let result = unsafe {
        libc::sync_file_range(
            file.as_fd().as_raw_fd(),
            offset,
            length,
            libc::SYNC_FILE_RANGE_WRITE,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writeback_of_a_file_starts_and_of_a_pipe_is_refused() {
        let mut path = std::env::temp_dir();
        path.push(format!("coracle-writeback-{}", std::process::id()));
        let file = std::fs::File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        start_writeback(&file, 0, 0).unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        assert!(start_writeback(&reader, 0, 0).is_err());
        assert!(start_writeback(&file, u64::MAX, 0).is_err());
    }
}
