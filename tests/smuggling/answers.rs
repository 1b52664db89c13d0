//! What an origin may answer to be read in two ways, and what has to become of it.

/// What has to become of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// The client gets a 502 instead, and the connection it came over is not used again.
    Discarded,
    /// The client gets this status with this body.
    Passed(u16, &'static str),
    /// The same, and the connection it came over is not used again.
    Last(u16, &'static str),
    /// The client sees the answer break off, behind this much of its body at most.
    Cut(&'static str),
}

use Verdict::{Cut, Discarded, Last, Passed};

/// To which method, what becomes of it, what it is, and whether the origin closes behind it.
type Case = (&'static str, Verdict, &'static [u8], Then);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Stays,
    Closes,
}

use Then::{Closes, Stays};

/// How long is it?
pub(crate) const FRAMING: &[Case] = &[
    (
        "GET",
        Discarded,
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        Stays,
    ),
    (
        "GET",
        Discarded,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
        Stays,
    ),
    ("HEAD", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", Stays),
    (
        "GET",
        Discarded,
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        Stays,
    ),
    (
        "GET",
        Discarded,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc",
        Stays,
    ),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc", Closes),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked,\r\n\r\n0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n", Stays),
    (
        "GET",
        Discarded,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Stays,
    ),
    (
        "GET",
        Discarded,
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Stays,
    ),
    ("GET", Discarded, b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 0\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 3;\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0x3\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 3 3\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 3.0\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551619\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length:\r\n 3\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length : 3\r\n\r\nabc", Stays),
    ("GET", Passed(200, "abc"), b"HTTP/1.1 200 OK\r\nContent-Length:\t3 \r\n\r\nabc", Stays),
    (
        "GET",
        Passed(200, "abc"),
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: content-length\r\n\r\nabc",
        Stays,
    ),
    ("GET", Passed(200, "abc"), b"HTTP/1.1 200 OK\r\ncontent-length: 003\r\n\r\nabc", Stays),
    (
        "GET",
        Passed(200, "abc"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding:chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        Stays,
    ),
    ("GET", Passed(200, ""), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\n\r\nabc", Closes),
    ("GET", Last(200, "abc"), b"HTTP/1.0 200 OK\r\n\r\nabc", Closes),
    ("GET", Last(200, "abc"), b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Cut("abc"), b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", Closes),
    ("GET", Cut("abc"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", Closes),
    ("GET", Cut("abc"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", Closes),
    ("GET", Cut("ab"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", Closes),
];

/// More than one answer, or other than was asked for.
pub(crate) const LEFT_OVER: &[Case] = &[
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcX", Stays),
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc\r\n", Stays),
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
    ("GET", Last(200, ""), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
    ("GET", Last(200, "abc"), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 103 Early Hints\r\n\r\n", Stays),
    ("HEAD", Last(200, ""), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("HEAD", Last(200, ""), b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Stays),
    ("HEAD", Last(200, ""), b"HTTP/1.1 200 OK\r\ncontent-length: 49\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
    ("HEAD", Passed(200, ""), b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Stays),
    ("GET", Last(204, ""), b"HTTP/1.1 204 No Content\r\n\r\nabc", Stays),
    ("GET", Last(204, ""), b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Last(304, ""), b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Last(304, ""), b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
    ("GET", Passed(304, ""), b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", Stays),
    ("GET", Passed(200, "abc"), b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Passed(200, "abc"), b"HTTP/1.1 103 Early Hints\r\ncontent-length: 9\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Passed(200, "abc"), b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 103 Early Hints\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", Stays),
    ("GET", Discarded, b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
    ("GET", Discarded, b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 3\r\n\r\nabc", Stays),
];

/// Heads that do not parse in one way.
pub(crate) const HEADS: &[Case] = &[
    ("GET", Discarded, b"HTTP/1.1 200 OK\ncontent-length: 0\n\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: y\nz: w\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: y\rset-cookie: z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: y\r\n z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: y\r\n\tz\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\n content-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: a\x00b\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: a\x01b\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: a\x7fb\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx y: z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx\x00: z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\"x\": z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\xff: z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n: z\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nno colon\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 20 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 -20 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1  200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1\t200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 O\x00K\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 O\rK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Passed(200, ""), b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.10 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"HTTP/1.1200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b" HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"200 OK\r\ncontent-length: 0\r\n\r\n", Stays),
    ("GET", Discarded, b"SSH-2.0-OpenSSH_9.2\r\n", Stays),
    ("GET", Discarded, b"\x15\x03\x01\x00\x02\x02\x46", Stays),
    ("GET", Discarded, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", Closes),
    ("GET", Passed(200, ""), b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n", Stays),
    (
        "GET",
        Passed(200, ""),
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nlocation: /%0d%0aset-cookie:%20x\r\n\r\n",
        Stays,
    ),
    (
        "GET",
        Passed(200, ""),
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: \xc2\x85set-cookie: y\xe2\x80\xa8z\r\n\r\n",
        Stays,
    ),
];

/// Bodies of chunks, behind the head of a chunked 200 and a chunk `abc`.
pub(crate) const CHUNKS: &[Case] = &[
    ("GET", Cut("abc"), b"\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b" 3\r\nabc\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"+3\r\nabc\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"0x3\r\nabc\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3,\r\nabc\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3\nabc\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3\r\r\nabc\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abcdef"), b"3\r\ndef\n0\r\n\r\n", Stays),
    ("GET", Cut("abcdef"), b"3\r\ndef0\r\n\r\n", Stays),
    ("GET", Cut("abcdef"), b"3\r\ndefX\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3;a\nb\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3;a=\"\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3;a=b\"\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3;\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3;a\x00\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"3;a\rb\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"ffffffffffffffff\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"100000000000000003\r\ndef\r\n0\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"0\r\nx: y\n\r\n", Stays),
    ("GET", Cut("abc"), b"0\r\nx: y\r\n z\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"0\r\nx y: z\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"0\r\nno colon\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"0\r\nx: \x00\r\n\r\n", Stays),
    ("GET", Cut("abc"), b"0\r\n\n", Stays),
    ("GET", Passed(200, "abc"), b"0  \r\n\r\n", Stays),
    ("GET", Passed(200, "abc"), b"000\r\n\r\n", Stays),
    ("GET", Passed(200, "abc"), b"0;x=\"y;z\"\r\nx: y\r\n\r\n", Stays),
    (
        "GET",
        Passed(200, "abc"),
        b"0\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\nset-cookie_: x\r\n\r\n",
        Stays,
    ),
    ("GET", Passed(200, "abc9\r\n0\r\n\r\nHT"), b"a\r\n9\r\n0\r\n\r\nHT\r\n0\r\n\r\n", Stays),
    ("GET", Last(200, "abc"), b"0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", Stays),
];
