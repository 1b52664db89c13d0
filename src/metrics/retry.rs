//! What became of attempts after the first and beside another, in the words of a label.

/// What became of an attempt at a request after the first one; the label `outcome` of `switchback_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retry {
    /// It was answered, with whatever status.
    Answered,
    /// It failed as well.
    Failed,
    /// It was made over a fresh connection to the same endpoint, which had not read the request.
    Reconnected,
    /// It was not made: the budget was exhausted.
    Exhausted,
}

impl Retry {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Failed, Self::Reconnected, Self::Exhausted];

    /// The label's value.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Reconnected => "reconnected",
            Self::Exhausted => "budget_exhausted",
        }
    }
}

/// What became of an attempt beside another one; the label `outcome` of `switchback_hedges_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hedge {
    /// It was answered first.
    Won,
    /// Another one was answered first, and it was ended.
    Lost,
    /// It failed.
    Failed,
    /// It was not made: the budget was exhausted.
    Exhausted,
}

impl Hedge {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Won, Self::Lost, Self::Failed, Self::Exhausted];

    /// The label's value.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Exhausted => "budget_exhausted",
        }
    }
}
