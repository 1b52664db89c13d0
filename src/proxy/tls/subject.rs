//! A client certificate's subject as text (RFC 4514), fit for a header.

use std::fmt::Write as _;

use http::HeaderValue;
use rustls::pki_types::{CertificateDer, UnixTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The subject of a certificate that is valid at `now`; `None` when it is not.
pub(super) fn of_valid(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<HeaderValue> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let now = i64::try_from(now.as_secs()).ok()?;
    let validity = parsed.validity();
    let is_valid = (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now);
    if !is_valid {
        return None;
    }
    HeaderValue::from_str(&text(parsed.subject())).ok()
}

/// Most specific part first, as `CN=alice,OU=shop,O=Example`; ASCII only, everything else escaped.
fn text(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (index, part) in parts.into_iter().rev().enumerate() {
        text.push_str(if index == 0 { "" } else { "," });
        for (index, attribute) in part.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { "+" });
            append(&mut text, attribute);
        }
    }
    text
}

/// The types with a short name: those of RFC 4514 §3, and the e-mail address, as OpenSSL and nginx write it.
const NAMES: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

fn append(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let kind = attribute.attr_type().to_id_string();
    let name = NAMES.iter().find(|(id, _)| *id == kind).map(|(_, name)| *name);
    match (name, attribute.as_str()) {
        (Some(name), Ok(value)) => {
            text.push_str(name);
            text.push('=');
            escape(text, value);
        }
        // Of other types the value is written as its encoding (§2.4).
        (name, _) => {
            text.push_str(name.unwrap_or(&kind));
            text.push_str("=#");
            encoding(attribute).iter().for_each(|byte| hex(text, *byte));
        }
    }
}

/// §2.4: special characters behind a backslash, what is not printable ASCII as its bytes in hexadecimal.
fn escape(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_edge = (byte == b' ' && (at == 0 || at == last)) || (byte == b'#' && at == 0);
        match byte {
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' if is_edge => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                hex(text, byte);
            }
        }
    }
}

/// The value's BER: tag, length, content.
fn encoding(attribute: &AttributeTypeAndValue<'_>) -> Vec<u8> {
    let (value, content) = (attribute.attr_value(), attribute.as_slice());
    // Strings have low tag numbers.
    let tag = u8::try_from(value.tag().0).unwrap_or(0x1f) & 0x1f;
    let class = (value.class() as u8) << 6 | u8::from(value.header.constructed()) << 5;
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut encoded = vec![class | tag];
    match (content.len(), u8::try_from(length.len())) {
        (0..0x80, _) => encoded.push(length.first().copied().unwrap_or(0)),
        (_, Ok(bytes)) => {
            encoded.push(0x80 | bytes);
            encoded.extend(length);
        }
        (_, Err(_)) => {}
    }
    encoded.extend(content);
    encoded
}

fn hex(text: &mut String, byte: u8) {
    // Writing to a string does not fail.
    let _ = write!(text, "{byte:02x}");
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};
    use rustls::pki_types::UnixTime;
    use std::time::Duration;

    use super::*;

    fn certificate(parts: &[(DnType, DnValue)]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        parts.iter().for_each(|(kind, value)| name.push(kind.clone(), value.clone()));
        params.distinguished_name = name;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn subject(parts: &[(DnType, DnValue)]) -> String {
        of_valid(&certificate(parts), UnixTime::now()).unwrap().to_str().unwrap().to_owned()
    }

    fn utf8(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn the_most_specific_part_comes_first() {
        let parts = [
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, utf8("Example")),
            (DnType::CommonName, utf8("alice")),
        ];
        assert_eq!(subject(&parts), "CN=alice,O=Example,C=DE");
    }

    #[test]
    fn nothing_in_a_name_can_be_taken_for_another_part_or_header() {
        let cn = |text: &str| subject(&[(DnType::CommonName, utf8(text))]);
        assert_eq!(cn("a,O=Evil"), r"CN=a\,O=Evil");
        assert_eq!(cn("a\r\nx-admin: 1"), r"CN=a\0d\0ax-admin: 1");
        assert_eq!(cn(" #a+b\\ "), r"CN=\ #a\+b\\\ ");
        assert_eq!(cn("#1"), r"CN=\#1");
        assert_eq!(cn("Zoë"), r"CN=Zo\c3\ab");
        assert_eq!(cn(""), "CN=");
    }

    #[test]
    fn a_type_or_value_without_a_name_is_written_as_its_encoding() {
        let odd = DnType::CustomDnType(vec![1, 2, 3, 4]);
        assert_eq!(subject(&[(odd, utf8("ab"))]), "1.2.3.4=#0c026162");
        let long = subject(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), utf8(&"a".repeat(200)))]);
        assert!(long.starts_with("1.2.3.4=#0c81c86161"), "{long}");
    }

    #[test]
    fn an_expired_certificate_has_no_say() {
        let certificate = certificate(&[(DnType::CommonName, utf8("alice"))]);
        let then = UnixTime::since_unix_epoch(Duration::from_secs(1 << 40));
        assert_eq!(of_valid(&certificate, then), None);
    }
}
