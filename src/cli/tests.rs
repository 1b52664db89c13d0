//! What an operator types, against a real admin socket.

mod compared;
mod in_use;
mod manual;
mod taken_back;

use std::future::Future;
use std::time::Duration;

use clap::CommandFactory;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::args::Cli;
use super::{Exit, Style, execute};
use crate::admin::tests::World;

impl World {
    async fn type_in(&self, words: &str) -> (Exit, String) {
        execute(&self.socket, words.split(' '), Style::PLAIN).await
    }
}

fn last(text: &str) -> &str {
    text.trim_end().lines().next_back().unwrap_or_default()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[tokio::test]
async fn a_flip_ends_with_what_is_safe_to_stop() {
    let world = World::new();
    let (exit, text) = world.type_in("flip shop --to green --reason out").await;
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(text.starts_with("shop: green 100 %, was blue 100 % (epoch 2)\n"), "{text}");
    assert!(text.contains("the way back: switchback revert shop\n"), "{text}");
    assert_eq!(last(&text), "blue is safe to stop: nothing is left on it");
    let (exit, text) = world.type_in("flip shop --to green").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "blue is safe to stop: nothing is left on it"), "{text}");
    let (_, text) = world.type_in("history -n 1").await;
    assert!(text.contains("operator uid=") && text.contains("· out"), "{text}");
}

#[tokio::test]
async fn a_flip_whose_drain_takes_too_long_times_out_and_says_so() {
    let world = World::new();
    let _blue = world.enter("shop", "blue");
    let (exit, text) = world.type_in("flip shop --to green --timeout 50ms").await;
    assert_eq!(exit, Exit::TimedOut);
    assert!(text.contains("the change itself is made (epoch 2)"), "{text}");
    assert_eq!(last(&text), "blue still has 1 request in flight: do not stop it yet");
    let (exit, text) = world.type_in("drain shop/blue").await;
    assert_eq!((exit, last(&text)), (Exit::Failed, "blue still has 1 request in flight: do not stop it yet"));
    let (exit, _) = world.type_in("drain shop/blue --wait --timeout 1ms").await;
    assert_eq!(exit, Exit::TimedOut);
    let (exit, text) = world.type_in("revert shop").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "green is safe to stop: nothing is left on it"));
    let (exit, text) = world.type_in("drain shop/blue --wait").await;
    assert_eq!((exit, last(&text)), (Exit::Failed, "blue carries 100 % of the traffic: do not stop it"));
}

#[tokio::test]
async fn a_version_that_never_was_is_not_called_safe_to_stop() {
    let world = World::new();
    for words in
        ["drain shop/bleu", "drain shop/bleu --wait", "drain sohp/blue --wait", "drain shop/bleu --json"]
    {
        let (exit, text) = world.type_in(words).await;
        assert_eq!(exit, Exit::Failed, "{words}: {text}");
        assert!(
            text.contains("has no version `bleu`") || text.contains("no service `sohp`"),
            "{words}: {text}"
        );
        assert!(!text.contains("safe to stop") && !text.contains("\"drained\""), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_version_that_goes_while_it_is_waited_for_is_safe_to_stop() {
    let world = World::new();
    let blue = world.enter("shop", "blue");
    world.type_in("flip shop --to green --async").await;
    world.type_in("versions rm shop blue --async").await;
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // Every look comes by here; after the first one nothing is left.
    let passing = async {
        let mut blue = Some(blue);
        loop {
            let mut near = listener.accept().await.unwrap().0;
            let mut far = UnixStream::connect(&world.socket).await.unwrap();
            copy_bidirectional(&mut near, &mut far).await.ok();
            blue.take().iter().for_each(|blue| blue.shard(0).counts.end());
        }
    };
    let waiting = execute(&socket, "drain shop/blue --wait".split(' '), Style::PLAIN);
    let (exit, text) = tokio::select! {
        told = waiting => told,
        () = passing => unreachable!("it has no end"),
    };
    assert_eq!((exit, last(&text)), (Exit::Done, "blue is safe to stop: nothing is left on it"), "{text}");
    assert_eq!(world.type_in("drain shop/blue").await.0, Exit::Failed, "nobody knows it any more");
}

/// Somebody in the proxy's place, who does this with the first caller.
async fn in_its_place<F: Future<Output = ()>>(
    words: &str,
    meet: impl FnOnce(UnixStream) -> F,
) -> (Exit, String) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let proxy = async { meet(listener.accept().await.unwrap().0).await };
    tokio::join!(execute(&socket, words.split(' '), Style::PLAIN), proxy).0
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_may_have_been_made() {
    let die = async |mut stream: UnixStream| {
        stream.read_exact(&mut [0; 4]).await.unwrap();
    };
    let (exit, text) = in_its_place("flip shop --to green", die).await;
    assert_eq!(exit, Exit::Failed);
    assert!(text.trim_end().ends_with("what was asked may have happened nevertheless"), "{text}");
    let (exit, text) = in_its_place("status", die).await;
    assert!(exit == Exit::Failed && !text.contains("may have happened"), "{text}");
}

#[tokio::test]
async fn async_does_not_wait() {
    let world = World::new();
    let _blue = world.enter("shop", "blue");
    let (exit, text) = world.type_in("flip shop --to green --async").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "blue still has 1 request in flight: do not stop it yet"));
}

#[tokio::test]
async fn weights_give_the_rest_to_stable() {
    let world = World::new();
    let (exit, text) = world.type_in("weights shop green=0.25%").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "blue and green carry traffic: stop neither"));
    assert!(text.starts_with("shop: blue 99.75 %, green 0.25 %, was blue 100 % (epoch 2)\n"), "{text}");
    let (exit, text) = world.type_in("weights shop green=5 --dry-run").await;
    assert_eq!(exit, Exit::Done);
    assert!(text.contains("would be blue 99.75 % → 95 %, green 0.25 % → 5 %"), "{text}");
    assert_eq!(last(&text), "nothing was changed: this was a dry run");
    let (exit, text) = world.type_in("weights shop green=five").await;
    assert_eq!(exit, Exit::Usage);
    assert!(text.contains("expected a percentage"), "{text}");
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let world = World::new();
    let (exit, text) = world.type_in("flip shop --to red").await;
    assert_eq!(exit, Exit::Failed);
    assert!(
        text.starts_with("cannot flip `shop` to `red`: service `shop` has no version `red`; it has "),
        "{text}"
    );
    assert!(
        last(&text).starts_with("hint: add it to the file or with `switchback versions add shop"),
        "{text}"
    );
    let (exit, text) = world.type_in("flip shop --to green --if-epoch 7 --json").await;
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &problem["status"]), (Exit::Failed, &412.into()));
}

#[tokio::test]
async fn machines_get_one_document() {
    let world = World::new();
    let (exit, text) = world.type_in("flip shop --to green --json").await;
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &answer["state"]), (Exit::Done, &"drained".into()));
    for words in [
        "status --json",
        "status shop --json",
        "history --json",
        "drain shop/blue --json",
        "versions shop --json",
    ] {
        let (exit, text) = world.type_in(words).await;
        assert!(
            exit == Exit::Done && serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{words}: {text}"
        );
    }
    // Also where no proxy says what is wrong.
    let nobody = "--socket /nonexistent.sock";
    for (words, token) in [
        (format!("status --json {nobody}"), "no_proxy"),
        (format!("flip shop --to green --json {nobody}"), "no_proxy"),
        (format!("drain shop/blue --json {nobody}"), "no_proxy"),
        ("weights shop green=5 green=6 --json".to_owned(), "failed"),
        ("check /nonexistent/none.toml --json".to_owned(), ""),
    ] {
        let (exit, text) = world.type_in(&words).await;
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
        let is_so = token.is_empty() || problem["type"] == format!("urn:switchback:problem:{token}");
        assert!(exit == Exit::Failed && is_so, "{words}: {text}");
    }
    let _green = world.enter("shop", "green");
    let (exit, text) = world.type_in("revert shop --json --timeout 20ms").await;
    let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((exit, &problem["change"]["epoch"]), (Exit::TimedOut, &3.into()));
}

#[tokio::test]
async fn pools_are_edited() {
    let world = World::new();
    let (exit, text) =
        world.type_in("versions add shop v3 --endpoint 127.0.0.1:9301 -e unix:/run/a.sock").await;
    assert_eq!(exit, Exit::Done, "{text}");
    assert!(last(&text).ends_with("Next: switchback flip shop --to v3"), "{text}");
    let (exit, text) = world.type_in("endpoints rm shop/v3 unix:/run/a.sock").await;
    assert_eq!(exit, Exit::Done, "{text}");
    world.type_in("flip shop --to green").await;
    let (_, text) = world.type_in("endpoints add shop/v3 127.0.0.1:9302").await;
    assert!(text.starts_with("shop: green 100 % (epoch "), "no traffic was moved: {text}");
    world.type_in("revert shop").await;
    let (_, text) = world.type_in("versions shop").await;
    assert!(text.contains("v3") && text.contains("127.0.0.1:9301") && !text.contains("a.sock"), "{text}");
    let (exit, text) = world.type_in("versions rm shop v3").await;
    assert_eq!(exit, Exit::Done, "{text}");
    assert_eq!(world.type_in("versions rm shop blue").await.0, Exit::Failed);
    assert_eq!(world.type_in("endpoints add shop 127.0.0.1:1").await.0, Exit::Usage);
}

#[tokio::test]
async fn an_endpoint_is_drained_and_serves_again() {
    let world = World::new();
    let blue = "shop/blue 127.0.0.1:9001";
    let (exit, text) = world.type_in(&format!("endpoints drain {blue}")).await;
    assert_eq!(exit, Exit::Failed, "the last one of a version with weight: {text}");
    world.type_in("endpoints add shop/blue 127.0.0.1:9002").await;
    let (exit, text) = world.type_in(&format!("endpoints drain {blue} --wait --reason kernel")).await;
    assert_eq!((exit, last(&text)), (Exit::Done, "127.0.0.1:9001 is safe to stop: nothing is left on it"));
    let (_, text) = world.type_in("versions shop").await;
    assert!(text.contains("127.0.0.1:9001 (draining)"), "{text}");
    let (_, text) = world.type_in("history -n 1 --json").await;
    assert!(text.contains("blue 127.0.0.1:9001 draining") && text.contains("kernel"), "{text}");
    let (exit, text) = world.type_in("endpoints rm shop/blue 127.0.0.1:9002").await;
    assert!(exit == Exit::Failed && text.contains("9002"), "the other one is all that serves: {text}");
    world.type_in(&format!("endpoints add {blue}")).await;
    let (_, text) = world.type_in("versions shop").await;
    assert!(text.contains("127.0.0.1:9001") && !text.contains("draining"), "{text}");
    let (exit, text) = world.type_in("endpoints rm shop/blue 127.0.0.1:9002").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "127.0.0.1:9002 is safe to stop: nothing is left on it"));
    assert_eq!(world.type_in("endpoints drain shop/blue 127.0.0.1:9").await.0, Exit::Failed);
}

#[tokio::test]
async fn everything_that_is_left_is_told_at_once() {
    let world = World::new();
    let (exit, text) = world.type_in("drain --all").await;
    let safe = "every version without traffic is safe to stop: nothing is left on any";
    assert_eq!((exit, last(&text)), (Exit::Done, safe));
    let _blue = world.enter("shop", "blue");
    world.type_in("flip shop --to green --async").await;
    let (exit, text) = world.type_in("drain --all").await;
    assert_eq!((exit, last(&text)), (Exit::Failed, "blue still has 1 request in flight: do not stop it yet"));
    let (exit, _) = world.type_in("drain --all --wait --timeout 1ms").await;
    assert_eq!(exit, Exit::TimedOut);
    assert_eq!(world.type_in("drain").await.0, Exit::Usage);
    assert_eq!(world.type_in("drain shop/blue --all").await.0, Exit::Usage);
}

#[tokio::test]
async fn what_is_no_address_or_protocol_is_not_understood() {
    let world = World::new();
    for words in [
        "endpoints add shop/blue host",
        "versions add shop v3 -e host",
        "versions add shop v3 -e 127.0.0.1:9301 --protocol spdy",
        "deploy shop --version v3 -e 127.0.0.1:99999",
        "rollout shop --replace host=127.0.0.1:1",
    ] {
        assert_eq!(world.type_in(words).await.0, Exit::Usage, "{words}");
    }
}

#[tokio::test]
async fn whether_a_rolling_deployment_is_supervised_is_for_its_service_to_say() {
    let world = World::new();
    for how in ["--supervise 1m", "--supervise", "--no-supervise"] {
        let words = format!("deploy shop --version v3 -e 127.0.0.1:9301 --rolling {how}");
        let (exit, text) = world.type_in(&words).await;
        let option = how.split(' ').next().unwrap_or_default();
        assert!(exit == Exit::Usage && text.contains(option), "{how}: {text}");
    }
}

#[tokio::test]
async fn the_history_of_a_service_that_never_was_is_a_slip() {
    let world = World::new();
    let (exit, text) = world.type_in("history nope").await;
    assert!(exit == Exit::Failed && text.contains("no service `nope`"), "{text}");
    assert_eq!(world.type_in("history shop").await.0, Exit::Done);
}

#[tokio::test]
async fn undo_and_explain_and_status() {
    let world = World::new();
    world.type_in("flip shop --to green").await;
    world.type_in("flip cart --to v2").await;
    let (exit, text) = world.type_in("undo --to 1").await;
    assert_eq!(
        (exit, last(&text)),
        (Exit::Done, "cart/v2 and shop/green are safe to stop: nothing is left on them")
    );
    assert!(text.contains("the way back: switchback undo --to 3"), "{text}");
    let (exit, text) = world.type_in("explain http://shop.example.com/x").await;
    assert_eq!((exit, last(&text)), (Exit::Done, "always to blue: it carries 100 % (epoch 4)"));
    assert_eq!(world.type_in("explain http://nix/x").await.0, Exit::Failed);
    let (exit, text) = world.type_in("status shop").await;
    assert!(exit == Exit::Done && text.contains("undo 0 s ago by operator uid="), "{text}");
}

#[tokio::test]
async fn a_label_is_no_part() {
    let world = World::new();
    world.type_in("versions add shop stable -e 127.0.0.1:9301").await;
    let (exit, text) = world.type_in("weights shop green=10 --rest stable").await;
    assert!(exit == Exit::Done && text.starts_with("shop: green 10 %, stable 90 %"), "{text}");
}

#[tokio::test]
async fn status_is_shown_when_the_store_is_lost() {
    let world = World::new();
    world.lose_the_store();
    for words in ["status", "status shop"] {
        let (exit, text) = world.type_in(words).await;
        assert!(
            exit == Exit::Done && text.contains("the history is not shown") && text.contains("blue"),
            "{text}"
        );
    }
    let (exit, text) = world.type_in("flip shop --to green").await;
    assert!(exit == Exit::Failed && text.contains("hint: ") && text.contains("traffic goes on"), "{text}");
}

#[tokio::test]
async fn status_is_shown_while_the_store_hangs() {
    let world = World::new();
    let shown = async {
        world.store_hangs().await;
        let mut shown = Vec::new();
        for words in ["status", "status shop"] {
            shown.push(timeout(Duration::from_secs(10), world.type_in(words)).await);
        }
        world.store_goes_on();
        shown
    };
    let (flipped, shown) = tokio::join!(world.type_in("flip cart --to v2"), shown);
    for (exit, text) in shown.into_iter().map(|shown| shown.expect("it does not wait for the store")) {
        assert!(
            exit == Exit::Done && text.contains("the history is not shown") && text.contains("blue"),
            "{text}"
        );
    }
    assert_eq!(flipped.0, Exit::Done);
}

#[tokio::test]
async fn nobody_at_the_socket_is_told_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let (exit, text) = execute(&socket, ["status"], Style::PLAIN).await;
    let expected = format!(
        "no switchback answers at {}: is it running? (--socket, SWITCHBACK_SOCKET)\n",
        socket.display()
    );
    assert_eq!((exit, text), (Exit::Failed, expected));
}

#[tokio::test]
async fn completions_know_the_verbs() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let (exit, script) = world.type_in(&format!("completions {shell}")).await;
        assert!(exit == Exit::Done && script.contains("revert"), "{shell}");
        assert!(!script.contains("become"), "{shell}: how a process follows another is no command");
    }
}
