//! Numbers of a verdict as people read them.

/// A number without needless zeros, to four places.
#[must_use]
pub fn figure(number: f64) -> String {
    let text = format!("{number:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share as points with a sign: `+18`, `-0.3`.
#[must_use]
pub fn points(share: f64) -> String {
    let points = share * 100.0;
    match points.abs() {
        9.95.. => format!("{points:+.0}"),
        0.995.. => format!("{points:+.1}"),
        _ => format!("{points:+.2}"),
    }
}

/// `e^log_e` for people: `0.35`, `12`, `1.2e5`; never too large for a number.
#[must_use]
pub fn odds(log_e: f64) -> String {
    let exponent = (log_e / std::f64::consts::LN_10 + 1e-9).floor();
    if exponent < 3.0 {
        let number = log_e.exp();
        return if number < 9.95 { figure((number * 100.0).round() / 100.0) } else { format!("{number:.0}") };
    }
    let mantissa = (log_e - exponent * std::f64::consts::LN_10).exp();
    // Rounding up to 10 would be one more place.
    let (mantissa, exponent) = if mantissa < 9.95 { (mantissa, exponent) } else { (1.0, exponent + 1.0) };
    let text = format!("{mantissa:.1}");
    format!("{}e{exponent:.0}", text.trim_end_matches(".0"))
}

/// Seconds as a span: `0.13 s`, `42 s`, `2.5 min`, `1.5 h`.
#[must_use]
pub fn span(seconds: f64) -> String {
    match seconds {
        ..9.995 => format!("{seconds:.2} s"),
        ..59.5 => format!("{seconds:.0} s"),
        ..3570.0 => format!("{:.1} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

/// Seconds that an answer takes: `0.5 ms`, `115 ms`, `1.2 s`.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds * 1e3 {
        ..9.95 => format!("{:.1} ms", seconds * 1e3),
        ..999.5 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odds_are_told_at_any_size() {
        let told = [0.0001, 0.354, 1.0, 9.94, 9.96, 100.0, 999.4, 1e3, 9.96e3, 1e4, 1.24e5]
            .map(|e: f64| odds(e.ln()));
        assert_eq!(told, ["0", "0.35", "1", "9.94", "10", "100", "999", "1e3", "1e4", "1e4", "1.2e5"]);
        assert_eq!(odds(5000.0 * std::f64::consts::LN_10), "1e5000");
    }

    #[test]
    fn differences_spans_and_times_have_the_digits_that_matter() {
        assert_eq!([1.0, 0.0996, 0.0994, -0.003, -1.0].map(points), ["+100", "+10", "+9.9", "-0.30", "-100"]);
        let spans = [0.126, 9.99, 10.0, 59.4, 59.6, 150.0, 3569.0, 5400.0].map(span);
        assert_eq!(spans, ["0.13 s", "9.99 s", "10 s", "59 s", "1.0 min", "2.5 min", "59.5 min", "1.5 h"]);
        let times = [0.0005, 0.00994, 0.1147, 0.9994, 0.9996, 1.25].map(time);
        assert_eq!(times, ["0.5 ms", "9.9 ms", "115 ms", "999 ms", "1.0 s", "1.2 s"]);
        assert_eq!([1.5, 2.0, 0.25, 100.0, 0.0].map(figure), ["1.5", "2", "0.25", "100", "0"]);
    }
}
