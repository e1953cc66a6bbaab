//! Go's `path.Match`, for `--filter reference=PATTERN`: `*` and `?` stop at a slash, `[a-z]` and `[^a]` are sets, `\` quotes.

/// Whether the whole text fits the pattern. A malformed pattern fits nothing.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Where to go on after a mismatch: one character more for the last star. Earlier stars never need another try, because a star
    // that took less leaves more for the last one.
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(_), Some(character)) => one(&pattern[p..], *character),
            _ => None,
        };
        if let Some(length) = step {
            p += length;
            t += 1;
            continue;
        }
        match retry {
            Some((after, taken)) if text.get(taken).is_some_and(|character| *character != '/') => {
                p = after;
                t = taken + 1;
                retry = Some((after, t));
            }
            _ => return false,
        }
    }
}

/// How many characters of the pattern fit this one character of text.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern[0] {
        '?' => (character != '/').then_some(1),
        '\\' => (*pattern.get(1)? == character).then_some(2),
        '[' => {
            let negated = pattern.get(1) == Some(&'^');
            let mut at = if negated { 2 } else { 1 };
            let first = at;
            let mut found = false;
            let element = |at: &mut usize| {
                if pattern.get(*at) == Some(&'\\') {
                    *at += 1;
                }
                let element = pattern.get(*at).copied();
                *at += 1;
                element
            };
            loop {
                if pattern.get(at) == Some(&']') && at > first {
                    break;
                }
                let low = element(&mut at)?;
                let mut high = low;
                if pattern.get(at) == Some(&'-') {
                    at += 1;
                    high = element(&mut at)?;
                }
                found |= (low..=high).contains(&character);
            }
            (found != negated && character != '/').then_some(at + 1)
        }
        literal => (literal == character).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_fit_as_gos_do() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("busy*", "busybox/x", false),
            ("*/x", "a/x", true),
            ("*", "a/x", false),
            ("*/*", "a/x", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("?usy", "busy", true),
            ("[a-c]usy", "busy", true),
            ("[^a-c]usy", "busy", false),
            ("[", "[", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("**", "ab", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "a*".repeat(60) + "b";
        assert!(!matches(&pattern, &"a".repeat(5000)));
    }
}
