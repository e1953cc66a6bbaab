//! Splits a command line into words as a POSIX shell would, without expanding anything, so that a test reads as the
//! line a user types.

/// The words of `line`: blanks separate, `'…'` is literal, `"…"` knows `\"` and `\\`, a backslash outside quotes
/// takes the next character. Panics on an unclosed quote, which is a mistake in the test.
pub fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\n' | '\t' => out.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => panic!("unclosed ' in {line:?}"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => panic!("unclosed \" in {line:?}"),
                        },
                        Some(c) => word.push(c),
                        None => panic!("unclosed \" in {line:?}"),
                    }
                }
            }
            '\\' => word
                .get_or_insert_default()
                .push(chars.next().expect("a character after \\")),
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn quotes_group_and_backslashes_escape() {
        assert_eq!(
            words(r#"run  -e 'A=b c' x"y z" "" \'q "\"\n""#),
            ["run", "-e", "A=b c", "xy z", "", "'q", r#""\n"#]
        );
    }
}
