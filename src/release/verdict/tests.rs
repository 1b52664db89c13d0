//! Proofs: the reference's figures, what holds of a bet, simulated stages, and what can be asked.

mod vectors;
