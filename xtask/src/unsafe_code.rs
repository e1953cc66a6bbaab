//! Finds `unsafe` outside crates/linux by reading the sources: the workspace's lint could be allowed again in any file,
//! this cannot.

use std::fs;
use std::path::{Path, PathBuf};

const ALLOWED: &str = "crates/linux";
const SEARCHED: [&str; 5] = ["crates", "xtask", "tests", "benches", "fuzz"];

/// `file:line` of every use of the keyword in code (not in comments, strings or longer names).
pub(crate) fn violations(workspace: &Path) -> Result<Vec<String>, String> {
    let mut files = Vec::new();
    for folder in SEARCHED {
        let folder = workspace.join(folder);
        if folder.is_dir() {
            collect(&folder, &mut files)?;
        }
    }
    let mut found = Vec::new();
    for file in files {
        let short = file.strip_prefix(workspace).unwrap_or(&file);
        if short.starts_with(ALLOWED) {
            continue;
        }
        let text = fs::read_to_string(&file).map_err(|e| format!("{}: {e}", short.display()))?;
        for line in uses(&text) {
            found.push(format!(
                "{}:{line}: unsafe outside {ALLOWED}",
                short.display()
            ));
        }
    }
    Ok(found)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries {
        let path = entry
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The line numbers, from 1, on which the keyword stands in code.
fn uses(source: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest, first);
        let token = &rest[..length];
        if token == "unsafe" {
            lines.push(line);
        }
        line += token.matches('\n').count();
        rest = &rest[length..];
    }
    lines
}

/// The length of the comment, literal, name or single character that `rest` begins with.
fn token_length(rest: &str, first: char) -> usize {
    let until = |end: &str| rest.find(end).unwrap_or(rest.len());
    if rest.starts_with("//") {
        return until("\n");
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if first == '"' {
        return quoted(rest, 1);
    }
    if first == '\'' {
        // A character literal has its closing quote after one character or an escape; a lifetime has none.
        let mut chars = rest[1..].chars();
        return match (chars.next(), chars.next()) {
            (Some('\\'), _) => 3 + rest[3..].find('\'').map_or(0, |at| at + 1),
            (Some(c), Some('\'')) => 2 + c.len_utf8(),
            _ => 1,
        };
    }
    if first.is_alphanumeric() || first == '_' {
        let name = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(name);
        if matches!(word, "r" | "br" | "cr") {
            let hashes = after.len() - after.trim_start_matches('#').len();
            if after[hashes..].starts_with('"') {
                let close = format!("\"{}", "#".repeat(hashes));
                let body = name + hashes + 1;
                return rest[body..]
                    .find(&close)
                    .map_or(rest.len(), |at| body + at + close.len());
            }
            if hashes == 1 {
                // `r#unsafe` is a name, not the keyword.
                let raw = &after[1..];
                let end = raw
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(raw.len());
                return name + 1 + end;
            }
        }
        return name;
    }
    first.len_utf8()
}

fn quoted(rest: &str, start: usize) -> usize {
    let mut escaped = false;
    for (at, c) in rest[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return start + at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyword_in_code_is_found_with_its_line() {
        let source =
            "fn a() {\n    unsafe { b() }\n}\nunsafe impl Send for C {}\n#[unsafe(no_mangle)]\n";
        assert_eq!(uses(source), [2, 4, 5]);
    }

    #[test]
    fn word_in_comments_strings_and_longer_names_is_not() {
        let source = r###"
            #![deny(unsafe_code)]
            // unsafe
            /* unsafe /* unsafe */ unsafe */
            let a = "unsafe \" unsafe"; let b = r#"unsafe " unsafe"#; let c = b"unsafe"; let d = br"unsafe";
            let e = '"'; let f: &'static str = "unsafe"; let g = '\''; let h = "unsafe"; let i = '\u{75}';
            let r#unsafe = not_unsafe;
        "###;
        assert_eq!(uses(source), Vec::<usize>::new());
    }

    #[test]
    fn code_after_a_literal_is_read_again() {
        assert_eq!(uses("let a = '\\''; let b = \"\\\\\"; unsafe {}"), [1]);
        assert_eq!(uses("fn f<'a>(x: &'a u8) { unsafe {} }"), [1]);
        assert_eq!(uses("let x = r\"\\\"; unsafe {}"), [1]);
    }

    #[test]
    fn planted_file_is_found_and_the_linux_crate_is_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for folder in ["crates/linux/src", "crates/store/src"] {
            let folder = dir.path().join(folder);
            fs::create_dir_all(&folder).expect("it is ours");
            fs::write(folder.join("lib.rs"), "\nfn f() { unsafe { g() } }\n").expect("it is ours");
        }
        assert_eq!(
            violations(dir.path()).expect("readable"),
            ["crates/store/src/lib.rs:2: unsafe outside crates/linux"]
        );
    }
}
