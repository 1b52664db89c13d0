//! What the targets share: bytes that come in pieces, and a second reader that is stricter than any that is out there.

#![forbid(unsafe_code)]

pub mod pieces;
pub mod strict;
