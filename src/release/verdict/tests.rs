//! Proofs: the reference's figures, what holds of a bet, simulated stages, and how a stage turns.

mod bets;
mod clients;
mod stages;
mod told;
mod turns;
mod vectors;
mod world;
