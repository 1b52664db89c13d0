//! `rules`: the first targeting rules of a service.

use super::*;

const TWO: &str = "versions.green.endpoints = [\"127.0.0.1:9101\"]\nstable = \"blue\"";

fn rules(text: &str) -> Vec<String> {
    let [service] = load_text(&format!("{SMALL}\n{TWO}\nrules = {text}")).services.try_into().unwrap();
    service.targeting.rules().iter().map(ToString::to_string).collect()
}

#[test]
fn they_are_read_in_order_with_all_that_a_rule_can_want() {
    assert_eq!(load_text(SMALL).services[0].targeting.rules(), []);
    assert_eq!(rules("[]"), [""; 0]);
    let read = rules(
        "[{ headers = { X-Beta = \"yes\", x-team = { starts = \"qa-\" } }, cookies = { beta = true }, to = \"green\" },
          { query = { preview = \"a b\" }, client = [\"10.1.2.3/8\", \"::1\"], host = \"*.beta.test\", to = \"blue\" }]",
    );
    let first = "header x-beta=yes and header x-team^=qa- and cookie beta -> green";
    let second = "query preview=\"a b\" and client 10.0.0.0/8,::1/128 and host *.beta.test -> blue";
    assert_eq!(read, [first, second]);
}

#[test]
fn what_is_wrong_with_them_is_said() {
    let mut all = String::new();
    for text in [
        "true",
        "[true]",
        "[{}]",
        "[{ to = \"green\" }]",
        "[{ headers = { x-beta = 1 }, to = \"green\" }]",
        "[{ headers = { x-beta = false }, to = \"green\" }]",
        "[{ headers = { x-beta = \"a\", X-Beta = \"b\" }, to = \"green\" }]",
        "[{ headers = { host = \"a\" }, to = \"green\" }]",
        "[{ headers = { x_beta = \"a\" }, to = \"green\" }]",
        "[{ cookies = { \"a b\" = true }, to = \"green\" }]",
        "[{ query = { a = { begins = \"b\" } }, to = \"green\" }]",
        "[{ client = \"10.0.0.0/8\", to = \"green\" }]",
        "[{ client = [\"10.0.0.0/33\"], to = \"green\" }]",
        "[{ host = \"a:80\", to = \"green\" }]",
        "[{ host = \"a.test\", to = \"gren\" }]",
        "[{ host = \"a.test\", to = \"@candidate\" }]",
        "[{ header = { a = \"b\" }, host = \"a.test\", to = \"green\" }]",
    ] {
        all.push_str(&format!("== {text}\n{}\n", check_text(&format!("{SMALL}\n{TWO}\nrules = {text}"))));
    }
    let many = vec!["{ host = \"a.test\", to = \"green\" }"; 65].join(", ");
    all.push_str(&format!("== 65\n{}\n", check_text(&format!("{SMALL}\n{TWO}\nrules = [{many}]"))));
    let empty = format!("{SMALL}\nversions.green.endpoints = []\nstable = \"blue\"");
    all.push_str(&format!(
        "== empty\n{}\n",
        check_text(&format!("{empty}\nrules = [{{ host = \"a.test\", to = \"green\" }}]"))
    ));
    insta::assert_snapshot!(all);
}
