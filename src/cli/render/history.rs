//! Past changes, and explanations.

use super::change::split;
use crate::admin::api::{Change, Copied, Decided, Explained, Fate, History, Pinned, Reason, Sticky};
use crate::cli::style::{Style, Tone, and, line, percent};

/// One change a line, newest first.
pub(in crate::cli) fn history(history: &History, style: Style) -> String {
    if history.changes.is_empty() {
        return "no changes".to_owned();
    }
    let rows: Vec<_> = history.changes.iter().map(cells).collect();
    let width = |column: fn(&[String; 4]) -> &str| rows.iter().map(|row| column(row).chars().count()).max();
    let epoch = width(|row| &row[0]).unwrap_or(0).max(5);
    let kind = width(|row| &row[1]).unwrap_or(0);
    let who = width(|row| &row[2]).unwrap_or(0).min(40);
    let head = format!("{:>epoch$}  {:<19}  {:<kind$}  {:<who$}  WHAT", "EPOCH", "WHEN (UTC)", "KIND", "WHO");
    let mut lines = vec![style.paint(Tone::Faint, &head)];
    for (change, [number, what, actor, summary]) in history.changes.iter().zip(&rows) {
        let actor = line(actor, who);
        let begin = format!("{number:>epoch$}  {}  {what:<kind$}  {actor:<who$}  ", when(change));
        let room = style.width.saturating_sub(begin.chars().count()).max(30);
        lines.push(format!("{begin}{}", line(summary, room)));
    }
    if let Some(before) = history.next_before {
        lines.push(style.paint(Tone::Faint, &format!("older ones: switchback history --before {before}")));
    }
    lines.join("\n")
}

fn cells(change: &Change) -> [String; 4] {
    let Change { actor, reason, summary, .. } = change;
    let who =
        if actor.name.is_empty() { actor.kind.clone() } else { format!("{} {}", actor.kind, actor.name) };
    let what = if reason.is_empty() { summary.clone() } else { format!("{summary} · {reason}") };
    [change.epoch.to_string(), line(&change.kind, 16), who, what]
}

/// What becomes of a request that has nothing its user is known by.
fn without(explained: &Explained) -> &'static str {
    match explained.sticky.as_ref().is_some_and(|sticky| sticky.mint) {
        true => "a cookie with the answer, which decides from then on",
        false => "a coin for each request",
    }
}

/// `2026-01-02 03:04:05`.
fn when(change: &Change) -> String {
    let text: String = change.at.chars().take(19).collect();
    format!("{:<19}", line(&text.replace('T', " "), 19))
}

/// Where a request would go, and why.
pub(in crate::cli) fn explained(url: &str, explained: &Explained, style: Style) -> String {
    let url = line(url, style.width);
    let Some(service) = &explained.service else {
        return format!("{url}: no route matches, the answer is 404 (epoch {})", explained.epoch);
    };
    let route = explained.route.as_ref().map(|route| format!(", by the route {}{}", route.host, route.path));
    let head = format!("{url} goes to {}{}", style.paint(Tone::Strong, service), route.unwrap_or_default());
    let weights = explained.chances.iter().map(|chance| (chance.version.clone(), chance.weight)).collect();
    let epoch = explained.epoch;
    let why = match (&explained.version, explained.reason) {
        (Some(version), Reason::Sticky) => {
            let by = explained.sticky.as_ref().map(Sticky::what).unwrap_or_default();
            let chance = explained.chances.first().map_or(0, |chance| chance.weight);
            format!(
                "always to {version}, which has {} of all users: by {by} (epoch {epoch}); without: {}",
                percent(chance),
                without(explained)
            )
        }
        (Some(version), Reason::Rule) => {
            let rule = explained.rule.as_ref().map(told);
            format!("to {version}: by {} (epoch {epoch})", rule.unwrap_or_default())
        }
        (Some(version), Reason::Pinned) => {
            let release = explained.pinned.as_ref().map(release).unwrap_or_default();
            format!("to {version}: a trusted hop has pinned {release} (epoch {epoch})")
        }
        (Some(version), _) => format!("always to {version}: it carries 100 % (epoch {epoch})"),
        (None, Reason::Redirect) => {
            format!("the route redirects by itself, no version is asked (epoch {epoch})")
        }
        (None, Reason::Fixed) => format!("the route has a fixed answer, no version is asked (epoch {epoch})"),
        (
            None,
            Reason::Coin
            | Reason::Minted
            | Reason::Sticky
            | Reason::Single
            | Reason::Rule
            | Reason::Pinned
            | Reason::NoRoute,
        ) => {
            let by = explained.sticky.as_ref().map(|sticky| format!("{} is not there: ", sticky.what()));
            let by = by.unwrap_or_default();
            format!("{by}{}: {} (epoch {epoch})", without(explained), split(&weights))
        }
    };
    let unless = by_client(&explained.by_client);
    let taken_out = (!explained.taken_out.is_empty()).then(|| {
        let names: Vec<_> = explained.taken_out.iter().map(|name| line(name, 64)).collect();
        let which = "headers with an underscore in their name, and a `client_subject_header`";
        format!("without {}: the proxy takes out {which}", and(&names))
    });
    let shield = explained.shielded_by.as_ref().map(|stable| {
        let failed = explained.version.as_deref().unwrap_or("another version");
        format!("what {} fails is answered by {}", line(failed, 64), line(stable, 64))
    });
    let copied = explained.copied.as_ref().map(copies);
    let pinned = explained.pinned.as_ref().and_then(not_followed);
    let upgrades = (!explained.upgrades.is_empty()).then(|| {
        let names: Vec<_> = explained.upgrades.iter().map(|name| line(name, 64)).collect();
        format!("the upgrade to {} is passed on", names.join(", "))
    });
    [head, why]
        .into_iter()
        .chain(shield)
        .chain(upgrades)
        .chain(copied)
        .chain(unless)
        .chain(pinned)
        .chain(taken_out)
        .collect::<Vec<_>>()
        .join("\n")
}

/// `5 % of such requests are copied to green`.
fn copies(copied: &Copied) -> String {
    let to = line(&copied.to, 64);
    match copied.unless {
        None => format!("{} of such requests are copied to {to}", percent(copied.share)),
        Some(why) => format!("it is not copied to {to}: {}", why.text()),
    }
}

/// That rules about the client's network may decide where nobody knows the client.
fn by_client(rules: &[Decided]) -> Option<String> {
    let told: Vec<_> = rules.iter().map(told).collect();
    (!told.is_empty()).then(|| {
        format!(
            "unless the client is in the network of {}: `--client IP` says who it is",
            told.join(", or of ")
        )
    })
}

/// Why a pin is not followed.
fn not_followed(pinned: &Pinned) -> Option<String> {
    let why = match pinned.fate {
        Fate::Followed => return None,
        Fate::Rule => ": the rule decides before that",
        Fate::Untrusted => " by nobody who is trusted: that is taken out; `--client IP` says who asks",
        Fate::NoVersion => ", and there is no version of that name: passed over",
        Fate::Idle => ", which gets nothing: passed over",
        Fate::Suspected => ", which supervision suspects: passed over",
        Fate::Retiring => ", which is being retired: passed over",
    };
    Some(format!("pinned to {}{why}", release(pinned)))
}

/// `v42`, or `v42/cart:v7`.
fn release(pinned: &Pinned) -> String {
    line(&pinned.release, usize::MAX)
}

/// `rule 2 (header x-beta=yes -> green)`.
fn told(rule: &Decided) -> String {
    format!("rule {} ({})", rule.number, line(&rule.text, usize::MAX))
}
