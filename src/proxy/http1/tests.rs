//! What the codec takes for a message and what it does not, whole and in pieces, alone and beside hyper.

mod answers;
mod requests;
