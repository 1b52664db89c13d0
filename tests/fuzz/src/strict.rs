//! A reader of HTTP/1.1 that shares nothing with the product's: line by line, and it takes only what every server there is
//! reads in the same way.

/// A head, as lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'h> {
    /// The three words of the first line.
    pub start: [&'h str; 3],
    /// The fields, in order.
    pub fields: Vec<(&'h str, &'h [u8])>,
}

impl<'h> Head<'h> {
    /// Reads all of `text`, a head of a request and nothing behind it.
    ///
    /// # Panics
    /// When anybody could read it otherwise.
    pub fn read(text: &'h [u8]) -> Self {
        let text = text.strip_suffix(b"\r\n\r\n").expect("a head ends with an empty line");
        let mut lines = Vec::new();
        let mut from = 0;
        while let Some(at) = text[from..].windows(2).position(|pair| pair == b"\r\n") {
            lines.push(&text[from..from + at]);
            from += at + 2;
        }
        lines.push(&text[from..]);
        for line in &lines {
            assert!(!line.is_empty(), "an empty line inside a head ends it");
            let is_plain = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
            assert!(line.iter().all(is_plain), "a control character: {}", line.escape_ascii());
        }
        let start = std::str::from_utf8(lines[0]).expect("a request line is text");
        let words: Vec<_> = start.split(' ').collect();
        let start = words.try_into().expect("a request line has three words");
        Self { start, fields: lines[1..].iter().map(|line| field(line)).collect() }
    }

    /// The values of this field, which is named in lower case.
    pub fn all(&self, name: &str) -> Vec<&'h [u8]> {
        let named = self.fields.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value).collect()
    }
}

/// One field line: a token, a colon, a blank, a value without blanks around it.
fn field(line: &[u8]) -> (&str, &[u8]) {
    let colon = line.iter().position(|byte| *byte == b':').expect("a field line has a colon");
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    assert!(!name.is_empty() && name.iter().all(is_token), "no token: {}", name.escape_ascii());
    let value = value.strip_prefix(b" ").expect("one blank before a value");
    assert_eq!(value.trim_ascii(), value, "blanks around a value");
    (std::str::from_utf8(name).expect("tokens are text"), value)
}
