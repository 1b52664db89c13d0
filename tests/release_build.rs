//! How the program is built: cargo calls `.cargo/rustc` in place of the compiler, which tells release builds what is busy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What the compiler is told that is to be told `told`, with this much of the environment.
fn called(told: &str, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(format!("{ROOT}/.cargo/rustc"));
    command.arg("echo").args(told.split(' ')).env_remove("SWITCHBACK_PROFILE_TO");
    let output = command.envs(environment.iter().copied()).output().expect("it can be called");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn a_release_build_is_told_what_is_busy() {
    let told = "--crate-name switchback -C opt-level=3 -C lto";
    let profile = format!("{ROOT}/.cargo/release.profdata");
    assert_eq!(
        called(told, &[]),
        format!("{told} -Cprofile-use={profile} -Cllvm-args=-no-pgo-warn-mismatch")
    );
    assert!(std::fs::metadata(profile).unwrap().len() > 0);
    let counting = called(told, &[("SWITCHBACK_PROFILE_TO", "/tmp/counts")]);
    assert_eq!(counting, format!("{told} -Cprofile-generate=/tmp/counts"));
}

#[test]
fn all_other_builds_are_left_as_they_are() {
    for told in [
        "-vV",
        "--crate-name switchback -C embed-bitcode=no -C debuginfo=1",
        "--crate-name switchback -C opt-level=3 -C embed-bitcode=no",
        "--crate-name switchback -C opt-level=3 --cfg fuzzing -C overflow-checks=on",
    ] {
        assert_eq!(called(told, &[]), told);
    }
}
