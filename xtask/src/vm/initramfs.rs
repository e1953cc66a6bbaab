//! The archive that a kernel starts from: this very program as `/init`, and the modules that it needs to reach its disks.
//!
//! The format is cpio's `newc`: for each file a header of hexadecimal numbers, its name and its bytes, each padded to
//! four bytes.

use std::fs;
use std::path::Path;

use super::{Problem, Result};

/// Where the modules are that [`super::guest`] loads, in the order of their names.
pub(super) const MODULES: &str = "/early";

/// Writes an archive with `init` and the modules in the folder `early` to `archive`.
pub(super) fn write(init: &Path, early: &Path, archive: &Path) -> Result<()> {
    let mut out = Vec::new();
    let mut number = 0;
    let mut add = |name: &str, mode: u32, bytes: &[u8]| {
        number += 1;
        entry(&mut out, name, mode, number, bytes);
    };
    for folder in ["dev", "proc", "sys", "new", &MODULES[1..]] {
        add(folder, 0o040_755, b"");
    }
    let read = |path: &Path| fs::read(path).problem(|| format!("cannot read {}", path.display()));
    add("init", 0o100_755, &read(init)?);
    for module in fs::read_dir(early).problem(|| format!("cannot read {}", early.display()))? {
        let module = module.problem(|| format!("cannot read {}", early.display()))?;
        let name = format!("{}/{}", &MODULES[1..], module.file_name().to_string_lossy());
        add(&name, 0o100_644, &read(&module.path())?);
    }
    add("TRAILER!!!", 0, b"");
    fs::write(archive, out).problem(|| format!("cannot write {}", archive.display()))
}

fn entry(out: &mut Vec<u8>, name: &str, mode: u32, number: u32, bytes: &[u8]) {
    let size = u32::try_from(bytes.len()).expect("a program is smaller than 4 GiB");
    let length = u32::try_from(name.len() + 1).expect("names are short");
    // inode, mode, uid, gid, links, time, size, device and special device numbers, name's length, checksum
    let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(name.bytes());
    out.push(0);
    pad(out);
    out.extend(bytes);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_is_what_the_format_says() {
        let mut out = Vec::new();
        entry(&mut out, "init", 0o100_755, 7, b"abcde");
        assert_eq!(&out[..14], b"07070100000007");
        assert_eq!(&out[14..22], b"000081ed");
        assert_eq!(&out[54..62], b"00000005");
        // Header and name are 110 + 5, padded to 116; the bytes 5, padded to 8.
        assert_eq!(&out[110..116], b"init\0\0");
        assert_eq!(&out[116..], b"abcde\0\0\0");
    }
}
