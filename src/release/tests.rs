//! The proofs of the heart: every phase × event reviewed, the laws that hold for any sequence, the file's rule.

mod discovery;
mod file;
mod gate;
mod laws;
mod mirror;
mod phases;
mod pins;
mod ramps;
mod retire;
mod targeting;
mod trials;
mod world;
