//! Bytes as the strictest reader takes them: what is not plainly one message of HTTP/1.1 is an error here.
//!
//! Written apart from the product's codecs on purpose: it is their judge.

use super::origin::Seen;

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    /// Answers only: until the connection ends.
    UntilClose,
}

/// A message off the front of some bytes, or why there is none yet.
#[derive(Debug)]
pub enum Parsed {
    /// It, and how many bytes it took.
    Whole(Seen, usize),
    /// More is to come.
    Partial,
}

/// The request at the front of `bytes`.
///
/// # Errors
/// What a second reader could take otherwise.
pub fn request(bytes: &[u8]) -> Result<Parsed, String> {
    let Some(end) = head_end(bytes)? else { return Ok(Parsed::Partial) };
    let mut seen = head(&bytes[..end])?;
    let words: Vec<_> = seen.line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words[..] else { return Err(format!("request line {:?}", seen.line)) };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("method {method:?}"));
    }
    if target.is_empty() || !target.bytes().all(|byte| byte.is_ascii_graphic() || byte >= 0x80) {
        return Err(format!("target {target:?}"));
    }
    if count(&seen, "host") != 1 {
        return Err(format!("{} Host fields", count(&seen, "host")));
    }
    let framing = framing(&seen)?.unwrap_or(Framing::None);
    body(bytes, end, framing, &mut seen)
}

/// The answer at the front of `bytes`, which are all that came if `is_closed`.
///
/// # Errors
/// As for requests.
pub fn answer(bytes: &[u8], method: &str, is_closed: bool) -> Result<Parsed, String> {
    let Some(end) = head_end(bytes)? else { return Ok(Parsed::Partial) };
    let mut seen = head(&bytes[..end])?;
    let status = status(&seen).ok_or_else(|| format!("status line {:?}", seen.line))?;
    let declared = framing(&seen)?;
    let bodiless = status < 200 || status == 204;
    if bodiless && declared.is_some() {
        return Err(format!("a body is announced in a {status}"));
    }
    let framing = match declared {
        _ if bodiless || status == 304 || method == "HEAD" => Framing::None,
        Some(framing) => framing,
        None if is_closed => Framing::UntilClose,
        None => return Ok(Parsed::Partial),
    };
    body(bytes, end, framing, &mut seen)
}

/// The status of an answer.
pub fn status(seen: &Seen) -> Option<u16> {
    let rest = seen.line.strip_prefix("HTTP/1.1 ").or_else(|| seen.line.strip_prefix("HTTP/1.0 "))?;
    let (code, reason) = rest.split_at_checked(3)?;
    let is_sound = reason.starts_with(' ') && code.bytes().all(|byte| byte.is_ascii_digit());
    code.parse().ok().filter(|code| is_sound && (100..600).contains(code))
}

/// Behind the empty line, if it is there.
fn head_end(bytes: &[u8]) -> Result<Option<usize>, String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    for (at, byte) in head.iter().enumerate() {
        let is_sound = match byte {
            b'\n' => at > 0 && head[at - 1] == b'\r',
            b'\r' => head.get(at + 1).is_none_or(|next| *next == b'\n'),
            0x20..=0x7e | b'\t' | 0x80.. => true,
            _ => false,
        };
        if !is_sound {
            return Err(format!("byte {byte:#04x} at {at} of {:?}", String::from_utf8_lossy(head)));
        }
    }
    Ok(end)
}

fn head(bytes: &[u8]) -> Result<Seen, String> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(&text).split("\r\n");
    let line = lines.next().unwrap_or("").to_owned();
    let headers = lines.map(field).collect::<Result<_, _>>()?;
    Ok(Seen { line, headers, ..Seen::default() })
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or_else(|| format!("field line {line:?}"))?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("field name {name:?}"));
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn count(seen: &Seen, name: &str) -> usize {
    seen.headers.iter().filter(|(given, _)| given == name).count()
}

/// What the head says about the body; saying it twice, or in two ways, is an error.
fn framing(seen: &Seen) -> Result<Option<Framing>, String> {
    let (lengths, codings) = (count(seen, "content-length"), count(seen, "transfer-encoding"));
    match (lengths, codings) {
        (0, 0) => Ok(None),
        (1, 0) => {
            let length = seen.header("content-length").unwrap_or("");
            let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
            let length = length.parse().ok().filter(|_| digits);
            length.map(Framing::Length).map(Some).ok_or_else(|| format!("length in {:?}", seen.headers))
        }
        (0, 1) if seen.header("transfer-encoding") == Some("chunked") => Ok(Some(Framing::Chunked)),
        _ => Err(format!("framing in {:?}", seen.headers)),
    }
}

fn body(bytes: &[u8], from: usize, framing: Framing, seen: &mut Seen) -> Result<Parsed, String> {
    let end = match framing {
        Framing::None => Some(from),
        Framing::Length(length) => Some(from + length).filter(|end| *end <= bytes.len()),
        Framing::UntilClose => Some(bytes.len()),
        Framing::Chunked => return chunks(bytes, from, seen),
    };
    let Some(end) = end else { return Ok(Parsed::Partial) };
    seen.body = bytes[from..end].to_vec();
    Ok(Parsed::Whole(std::mem::take(seen), end))
}

fn chunks(bytes: &[u8], mut at: usize, seen: &mut Seen) -> Result<Parsed, String> {
    loop {
        let Some(line) = bytes[at..].windows(2).position(|pair| pair == b"\r\n") else {
            return Ok(Parsed::Partial);
        };
        let digits = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        let is_sound = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(&digits, 16).ok().filter(|_| is_sound);
        let size = size.ok_or_else(|| format!("chunk size {digits:?}"))?;
        at += line + 2;
        if size == 0 {
            return trailers(bytes, at, seen);
        }
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(Parsed::Partial) };
        if !data.ends_with(b"\r\n") {
            return Err(format!("{:?} behind a chunk of {size}", String::from_utf8_lossy(&data[size..])));
        }
        seen.body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
}

fn trailers(bytes: &[u8], at: usize, seen: &mut Seen) -> Result<Parsed, String> {
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Parsed::Whole(std::mem::take(seen), at + 2));
    }
    let Some(end) = head_end(&bytes[at..])? else { return Ok(Parsed::Partial) };
    let text = String::from_utf8_lossy(&bytes[at..at + end - 4]);
    seen.trailers = text.split("\r\n").map(field).collect::<Result<_, _>>()?;
    Ok(Parsed::Whole(std::mem::take(seen), at + end))
}
