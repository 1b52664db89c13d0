//! The manual pages.

use clap::CommandFactory;

use crate::admin::tests::World;
use crate::cli::Exit;
use crate::cli::args::Cli;

#[tokio::test]
async fn every_command_has_a_manual_page() {
    fn pages(command: &clap::Command, name: &str, all: &mut Vec<(String, String)>) {
        all.push((format!("{name}.1"), command.get_about().unwrap().to_string()));
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            pages(verb, &format!("{name}-{}", verb.get_name()), all);
        }
    }
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let (exit, page) = world.type_in("man").await;
    assert!(exit == Exit::Done && page.starts_with(".ie") && page.contains(".TH switchback 1"), "{page}");
    assert!(page.contains("switchback\\-flip(1)") && !page.contains("become"), "{page}");

    let folder = folder.path().join("man1");
    let (exit, said) = world.type_in(&format!("man --dir {}", folder.display())).await;
    let mut all = Vec::new();
    pages(&Cli::command(), "switchback", &mut all);
    assert_eq!((exit, said), (Exit::Done, format!("{} pages in {}\n", all.len(), folder.display())));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), all.len());
    for (name, about) in &all {
        let page =
            std::fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-").replace("\\*(Aq", "'");
        assert!(page.contains(about.as_str()) && page.contains("SYNOPSIS"), "{name}: {page}");
    }
    assert!(all.iter().any(|(name, _)| name == "switchback-endpoints-add.1"));
    let flip = std::fs::read_to_string(folder.join("switchback-flip.1")).unwrap();
    assert!(flip.contains("\\fBswitchback flip\\fR") && flip.contains("Examples"), "{flip}");

    let file = folder.join("switchback.1");
    let (exit, said) = world.type_in(&format!("man --dir {}", file.display())).await;
    assert!(exit == Exit::Failed && said.contains("cannot write the manual to"), "{said}");
}
