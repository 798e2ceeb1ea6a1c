//! Files of variables, in the form that systemd reads (systemd.exec(5), `EnvironmentFile=`).

/// What systemd reads with a backslash before it inside double quotes.
const ESCAPED: [char; 4] = ['"', '\\', '`', '$'];

/// The variables in such a text, in its order. What is no assignment is passed over.
#[must_use]
pub fn parse(text: &str) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|character| character.is_whitespace()).is_some() {}
        let Some(first) = rest.peek() else { return variables };
        if matches!(first, '#' | ';') {
            rest.by_ref().find(|character| *character == '\n');
            continue;
        }
        let mut name = String::new();
        while let Some(character) = rest.next_if(|character| !matches!(character, '=' | '\n')) {
            name.push(character);
        }
        if rest.next() == Some('=') {
            variables.push((name.trim_end().to_owned(), value(&mut rest)));
        }
    }
}

/// A value, up to the end of its line.
fn value(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut value = String::new();
    // What is quoted or escaped stays, even if it is a blank at the end.
    let mut kept = 0;
    while rest.next_if(|character| matches!(character, ' ' | '\t')).is_some() {}
    while let Some(character) = rest.next() {
        match character {
            '\n' => break,
            '\'' => {
                value.extend(rest.by_ref().take_while(|character| *character != '\''));
                kept = value.len();
            }
            '"' => {
                while let Some(character) = rest.next_if(|character| *character != '"') {
                    match (character, rest.peek().copied()) {
                        ('\\', Some('\n')) => drop(rest.next()),
                        ('\\', Some(next)) if ESCAPED.contains(&next) => value.extend(rest.next()),
                        _ => value.push(character),
                    }
                }
                rest.next();
                kept = value.len();
            }
            '\\' => {
                // A line that ends with it goes on with the next one.
                value.extend(rest.next().filter(|next| *next != '\n'));
                kept = value.len();
            }
            other => value.push(other),
        }
    }
    let end = value[kept..].trim_end().len();
    value.truncate(kept + end);
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        parse(text)
    }

    #[test]
    fn it_is_read_as_systemd_reads_it() {
        let text = "# a comment\n; another\n\nA=plain text \nB='single $x \\n' \nC=\"double \\\"q\\\" \\$x \\n\"\n\
            D=a\\\nb\nE=\nF = spaced\nno assignment\nG=\"one\ntwo\"\nH=a\\ \nI=x\"y\"'z'";
        let pairs = [
            ("A", "plain text"),
            ("B", "single $x \\n"),
            ("C", "double \"q\" $x \\n"),
            ("D", "ab"),
            ("E", ""),
            ("F", "spaced"),
            ("G", "one\ntwo"),
            ("H", "a "),
            ("I", "xyz"),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parsed(text), pairs);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
