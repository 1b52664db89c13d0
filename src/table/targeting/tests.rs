//! Which rule fits whom, and how rules are written.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

/// A request in a line each.
#[derive(Debug, Clone, Default)]
struct Request {
    headers: Vec<(&'static str, String)>,
    query: String,
    client: Option<IpAddr>,
    host: String,
}

impl Shown for Request {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.headers.iter().filter(move |(other, _)| *other == name).map(|(_, value)| value.as_bytes())
    }
    fn query(&self) -> &[u8] {
        self.query.as_bytes()
    }
    fn client(&self) -> Option<IpAddr> {
        self.client
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
}

fn with(headers: &[(&'static str, &str)]) -> Request {
    let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Request { headers, ..Request::default() }
}

fn asking(query: &str) -> Request {
    Request { query: query.to_owned(), ..Request::default() }
}

fn from(client: &str) -> Request {
    Request { client: Some(client.parse().unwrap()), ..Request::default() }
}

fn for_host(host: &str) -> Request {
    Request { host: host.to_owned(), ..Request::default() }
}

fn rules(all: &[&str]) -> Targeting {
    Targeting::new(all.iter().map(|rule| rule.parse().unwrap()).collect()).unwrap()
}

fn names() -> Vec<VersionName> {
    ["blue", "green", "v3"].map(|name| name.parse().unwrap()).into()
}

/// Which rule decides, and for which version.
fn aim(all: &[&str], request: &Request) -> Option<(u8, usize)> {
    let names = names();
    let aim = Aims::of(&rules(all), names.iter())?.aim(request)?;
    Some((aim.rule, aim.version))
}

fn fits(when: &str, request: &Request) -> bool {
    aim(&[&format!("{when} -> green")], request).is_some()
}

#[test]
fn a_header_is_compared_line_by_line_and_its_name_in_any_case() {
    let request = with(&[("x-beta", "no"), ("x-beta", "yes"), ("x-team", "qa-eu"), ("x-empty", "")]);
    for when in
        ["header x-beta=yes", "header X-Beta=no", "header x-team^=qa", "header x-beta", "header x-empty=\"\""]
    {
        assert!(fits(when, &request), "{when}");
    }
    for when in [
        "header x-beta=YES",
        "header x-beta=ye",
        "header x-team=qa",
        "header x-other",
        "header x-team^=qa-eu-1",
    ] {
        assert!(!fits(when, &request), "{when}");
    }
}

#[test]
fn of_a_cookie_the_first_counts_and_of_a_parameter_any() {
    let request = with(&[("cookie", "a=1; beta=x=y;  team=\"q\""), ("cookie", "beta=2; c")]);
    for (when, is_so) in [
        ("cookie beta=x=y", true),
        ("cookie beta=2", false),
        ("cookie beta", true),
        ("cookie team=\"\\\"q\\\"\"", true),
        ("cookie c", false),
        ("cookie Beta", false),
    ] {
        assert_eq!(fits(when, &request), is_so, "{when}");
    }
    let request = asking("a=1&preview=gr%65en&preview=b+c&%62=%&flag&x=%zz&=&&e=%C3%A9");
    for (when, is_so) in [
        ("query preview=green", true),
        ("query preview=b+c", true),
        ("query preview=\"b c\"", false),
        ("query preview^=gre", true),
        ("query b=%", true),
        ("query flag", true),
        ("query flag=\"\"", true),
        ("query x=%zz", true),
        ("query e=é", true),
        ("query A", false),
        ("query other", false),
    ] {
        assert_eq!(fits(when, &request), is_so, "{when}");
    }
}

#[test]
fn a_client_is_in_one_of_the_networks_and_nobody_in_none() {
    for (when, client, is_so) in [
        ("client 10.0.0.0/8", "10.255.0.1", true),
        ("client 10.0.0.0/8", "11.0.0.1", false),
        ("client 192.0.2.1,2001:db8::/32", "2001:db8:1::1", true),
        ("client 192.0.2.1,2001:db8::/32", "192.0.2.1", true),
        ("client 192.0.2.1,2001:db8::/32", "192.0.2.2", false),
        ("client ::ffff:10.0.0.0/104", "10.1.2.3", true),
        ("client 10.9.9.9/8", "10.1.2.3", true),
    ] {
        assert_eq!(fits(when, &from(client)), is_so, "{when} {client}");
    }
    assert!(!fits("client 0.0.0.0/0,::/0", &Request::default()), "nobody knows who it is");
}

#[test]
fn a_host_is_a_name_or_what_is_below_one() {
    for (when, host, is_so) in [
        ("host beta.example.com", "BETA.example.com", true),
        ("host beta.example.com", "beta.example.com.", true),
        ("host beta.example.com", "x.beta.example.com", false),
        ("host *.example.com", "a.b.Example.com", true),
        ("host *.example.com", "example.com", false),
        ("host *.example.com", ".example.com", false),
        ("host *.example.com", "xexample.com", false),
        ("host *.example.com", "", false),
    ] {
        assert_eq!(fits(when, &for_host(host)), is_so, "{when} {host}");
    }
}

#[test]
fn all_conditions_have_to_be_met_and_the_first_rule_that_fits_decides() {
    let all = [
        "header x-beta=yes and cookie team -> green",
        "header x-beta -> blue",
        "cookie team=qa -> v3",
        "header x-beta=yes -> green",
    ];
    assert_eq!(aim(&all, &with(&[("x-beta", "yes"), ("cookie", "team=qa")])), Some((1, 1)));
    assert_eq!(aim(&all, &with(&[("x-beta", "yes")])), Some((2, 0)));
    assert_eq!(aim(&all, &with(&[("cookie", "team=qa")])), Some((3, 2)));
    assert_eq!(aim(&all, &with(&[("cookie", "team=x")])), None);
    assert_eq!(aim(&[], &with(&[("x-beta", "yes")])), None);
    // A version that is not there has no index, and its rule is passed over.
    assert_eq!(
        aim(&["header x-beta -> gone", "header x-beta -> v3"], &with(&[("x-beta", "")])),
        Some((2, 2))
    );
}

#[test]
fn what_no_request_can_show_is_refused() {
    for (rule, says) in [
        ("green", "too few words"),
        ("-> green", "has conditions"),
        ("header x-beta=yes green", "ends with"),
        ("header x-beta=yes -> ", "ends with"),
        ("header -> green", "two words"),
        ("header x-beta or cookie b -> green", "between two conditions"),
        ("header x-beta and -> green", "has conditions"),
        ("heading x-beta -> green", "`heading` is no condition"),
        ("header \"x-beta -> green", "quote"),
        ("header x/beta=1 -> green", "not a header name"),
        ("header Host=a -> green", "condition on the host"),
        ("header cookie=a -> green", "condition on a cookie"),
        ("header x=\" a\" -> green", "a space around it"),
        ("cookie ^=a -> green", "no name for a rule"),
        ("query a^= -> green", "begins with nothing"),
        ("cookie a=b;c -> green", "where a cookie ends"),
        ("header a=1 and header A=2 -> green", "one condition on header a"),
        ("client 10.0.0.0/33 -> green", "no network"),
        ("client 10.0.0.0/8, -> green", "no network"),
        ("host * -> green", "any host"),
        ("host a.b:80 -> green", "not a host"),
        ("header a -> @stable", "not a"),
        ("header a -> two words", "ends with"),
    ] {
        let refused = rule.parse::<TargetRule>().map(|rule| rule.to_string()).unwrap_err();
        assert!(refused.0.contains(says), "{rule}: {refused}");
    }
    let long = Matching::Is("x".repeat(Condition::MOST_VALUE + 1).into());
    assert!(Conditions::new(vec![Condition::Header("x".into(), long)]).is_err());
    assert!(Conditions::new(vec![Condition::Header("x".into(), Matching::Is("a\nb".into()))]).is_err());
    assert!(Conditions::new(vec![Condition::Query("x".repeat(257).into(), Matching::There)]).is_err());
}

#[test]
fn so_many_and_no_more() {
    let rule = |text: &str| text.parse::<TargetRule>().unwrap();
    let many = |count| Targeting::new(vec![rule("header a -> green"); count]);
    assert!(many(Targeting::MOST_RULES).is_ok());
    assert!(many(Targeting::MOST_RULES + 1).unwrap_err().0.contains("65 rules"));
    let networks: Vec<_> = (0..64).map(|number| format!("10.{number}.0.0/16")).collect();
    let wide = rule(&format!("client {} -> green", networks.join(",")));
    assert!(Targeting::new(vec![wide.clone(); 2]).is_ok());
    assert!(
        Targeting::new(vec![wide.clone(), wide, rule("header a -> green")]).unwrap_err().0.contains("129")
    );
}

#[test]
fn it_is_told_in_a_line() {
    assert_eq!(rules(&[]).to_string(), "no rules");
    assert_eq!(
        rules(&["cookie b and header x-a=yes -> green"]).to_string(),
        "1 rule (header x-a=yes and cookie b -> green)"
    );
    let more = rules(&["client 10.1.2.3/8,192.0.2.1 -> green", "header a -> v3", "query q^=\"a b\" -> v3"]);
    assert_eq!(more.to_string(), "3 rules (client 10.0.0.0/8,192.0.2.1/32 -> green, and 2 more)");
    let long = format!("header x={} -> green", "é".repeat(300));
    assert!(rules(&[&long]).to_string().chars().count() < 140);
    assert_eq!(more.without(&"v3".parse().unwrap()).rules().len(), 1);
    assert!(more.leads_to(&"v3".parse().unwrap()) && !more.leads_to(&"blue".parse().unwrap()));
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let name = prop::sample::select(&["a", "b", "and"][..]);
    let value = prop::sample::select(&["", "x", "xy", "y z", "\"", "\\", "a=b"][..]);
    let matching = prop_oneof![
        Just(Matching::There),
        value.clone().prop_map(|value| Matching::Is(value.into())),
        value
            .prop_filter("it says something", |value| !value.is_empty())
            .prop_map(|value| Matching::Starts(value.into())),
    ];
    let client = prop::sample::select(&["10.0.0.0/8", "10.1.0.0/16", "::/0"][..]);
    prop_oneof![
        (0..3u8, name, matching).prop_map(|(what, name, matching)| match what {
            0 => Condition::Header(name.into(), matching),
            1 => Condition::Cookie(name.into(), matching),
            _ => Condition::Query(name.into(), matching),
        }),
        client.prop_map(|client| Condition::Client([client.parse().unwrap()].into())),
        prop::sample::select(&["a.test", "*.test"][..])
            .prop_map(|host| Condition::Host(host.parse().unwrap())),
    ]
}

fn any_rule() -> impl Strategy<Value = TargetRule> {
    let conditions = prop::collection::vec(any_condition(), 1..4);
    (conditions, prop::sample::select(&["blue", "green", "v3", "gone"][..]))
        .prop_filter_map("no two about the same", |(all, to)| {
            Some(TargetRule { when: Conditions::new(all).ok()?, to: to.parse().unwrap() })
        })
}

fn any_request() -> impl Strategy<Value = Request> {
    let value = || prop::sample::select(&["", "x", "xy", "y z", "\"", "\\", "a=b"][..]);
    let headers = prop::collection::vec((prop::sample::select(&["a", "b", "and"][..]), value()), 0..4);
    let cookies = prop::collection::vec((prop::sample::select(&["a", "b", "and"][..]), value()), 0..3);
    let query = prop::collection::vec((prop::sample::select(&["a", "%62", "and"][..]), value()), 0..3);
    let client = prop::option::of(prop::sample::select(&["10.1.2.3", "10.2.0.1", "::1", "192.0.2.1"][..]));
    let host = prop::sample::select(&["a.test", "b.TEST", "test", ""][..]);
    (headers, cookies, query, client, host).prop_map(|(headers, cookies, query, client, host)| {
        let pairs = |pairs: Vec<(&str, &str)>, between: &str| {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            pairs.join(between)
        };
        let mut headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        headers.push(("cookie", pairs(cookies, "; ")));
        let client = client.map(|client| client.parse().unwrap());
        Request { headers, query: pairs(query, "&"), client, host: host.to_owned() }
    })
}

#[test]
fn a_rule_keeps_its_number_while_others_are_passed_over() {
    let names = names();
    let all = rules(&["host a -> green", "host b -> blue", "host a -> v3", "host c -> blue"]);
    let aims = Aims::of(&all.without(&names[1]), names.iter()).unwrap().numbered_among(&all);
    let told = |host: &str| aims.aim(&for_host(host)).map(|aim| (aim.rule, aim.version));
    assert_eq!([told("a"), told("b"), told("c")], [Some((3, 2)), Some((2, 0)), Some((4, 0))]);
    assert_eq!(aims.rule(4), Some(&all.rules()[3]));
    assert_eq!(aims.rule(1), None);
}

#[test]
fn of_whom_nobody_knows_each_network_that_may_be_his_is_told() {
    let names = names();
    let all =
        ["client 10.0.0.0/8 and host a -> green", "client ::1 -> v3", "host a -> blue", "client ::2 -> v3"];
    let aims = Aims::of(&rules(&all), names.iter()).unwrap();
    let told = |request: &Request| aims.by_client(request).map(|aim| aim.rule).collect::<Vec<_>>();
    assert_eq!(told(&for_host("a")), [1, 2]);
    assert_eq!(told(&for_host("b")), [2, 4]);
    assert_eq!(told(&from("192.0.2.1")), [0; 0]);
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(rule in any_rule()) {
        prop_assert_eq!(rule.to_string().parse::<TargetRule>().unwrap(), rule);
    }

    /// The plain way: look at every rule, and take the lowest number of those of which every condition fits alone.
    #[test]
    fn the_first_that_fits_decides(all in prop::collection::vec(any_rule(), 1..6), request in any_request()) {
        let alone = |condition: &Condition| Conditions::new(vec![condition.clone()]).unwrap().fit(&request);
        let names = names();
        let is_known = |rule: &TargetRule| names.contains(&rule.to);
        let fitting = all.iter().position(|rule| is_known(rule) && rule.when.all().iter().all(alone));
        let aims = Aims::of(&Targeting::new(all.clone()).unwrap(), names.iter()).unwrap();
        let aim = aims.aim(&request);
        prop_assert_eq!(aim.map(|aim| usize::from(aim.rule) - 1), fitting);
        if let Some(aim) = aim {
            prop_assert_eq!(&names[aim.version], &all[usize::from(aim.rule) - 1].to);
        }
    }

    /// What anybody may send is looked at without harm.
    #[test]
    fn no_query_is_too_odd(query in "[ -~]{0,64}", rule in any_rule()) {
        let names = names();
        let aims = Aims::of(&Targeting::new(vec![rule]).unwrap(), names.iter()).unwrap();
        aims.aim(&asking(&query));
    }
}
