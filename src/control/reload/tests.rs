//! A real directory, watched: editors that rename, Kubernetes that swaps a link.

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A configuration directory under watch.
struct World {
    dir: TempDir,
    triggers: mpsc::Receiver<()>,
    trigger: Trigger,
    watch: Watch,
}

impl World {
    fn start(arrange: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().unwrap();
        arrange(dir.path());
        let (trigger, triggers) = Trigger::new();
        let watched = Watched {
            files: vec![dir.path().join("switchback.toml")],
            dirs: vec![dir.path().join("conf.d")],
            named: Vec::new(),
        };
        let watch = watch(watched, trigger.clone()).unwrap();
        Self { dir, triggers, trigger, watch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The bound is a failure guard only, and shorter than the rescan: a lost event fails the test.
    async fn triggered(&mut self) {
        let triggered = tokio::time::timeout(RESCAN / 2, self.triggers.recv()).await;
        assert_eq!(triggered, Ok(Some(())));
    }
}

fn plain(dir: &Path) {
    fs::write(dir.join("switchback.toml"), "a = 1").unwrap();
    fs::create_dir(dir.join("conf.d")).unwrap();
}

#[tokio::test]
async fn a_write_in_place_is_seen_each_time() {
    let mut world = World::start(plain);
    for text in ["a = 2", "a = 3", ""] {
        fs::write(world.path("switchback.toml"), text).unwrap();
        world.triggered().await;
    }
}

#[tokio::test]
async fn a_rename_over_the_file_is_seen_each_time() {
    let mut world = World::start(plain);
    for text in ["a = 2", "a = 3"] {
        fs::write(world.path(".switchback.toml.tmp"), text).unwrap();
        fs::rename(world.path(".switchback.toml.tmp"), world.path("switchback.toml")).unwrap();
        world.triggered().await;
    }
}

#[tokio::test]
async fn a_file_that_goes_and_comes_is_seen() {
    let mut world = World::start(plain);
    fs::remove_file(world.path("switchback.toml")).unwrap();
    world.triggered().await;
    fs::write(world.path("switchback.toml"), "a = 1").unwrap();
    world.triggered().await;
}

/// As Kubernetes mounts a ConfigMap: `switchback.toml → ..data/switchback.toml`, `..data → ..1`.
fn config_map(dir: &Path, number: &str, text: &str) {
    let real = dir.join(format!("..{number}"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("switchback.toml"), text).unwrap();
    symlink(format!("..{number}"), dir.join("..data_tmp")).unwrap();
    fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
}

#[tokio::test]
async fn a_symlink_swap_is_seen_each_time() {
    let mut world = World::start(|dir| {
        config_map(dir, "1", "a = 1");
        symlink("..data/switchback.toml", dir.join("switchback.toml")).unwrap();
    });
    for number in ["2", "3"] {
        config_map(world.dir.path(), number, &format!("a = {number}"));
        world.triggered().await;
    }
}

#[tokio::test]
async fn a_folder_that_is_another_by_a_link_is_seen_each_time() {
    let release = |dir: &Path, number: u32| {
        let folder = dir.join(format!("releases/{number}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("switchback.toml"), number.to_string()).unwrap();
        symlink(format!("releases/{number}"), dir.join("current_tmp")).unwrap();
        fs::rename(dir.join("current_tmp"), dir.join("current")).unwrap();
    };
    let place = tempfile::tempdir().unwrap();
    release(place.path(), 1);
    let file = place.path().join("current/switchback.toml");
    let mut world = World::start(|dir| symlink(&file, dir.join("switchback.toml")).unwrap());
    for number in 2..4 {
        release(place.path(), number);
        world.triggered().await;
        fs::write(&file, "more").unwrap();
        world.triggered().await;
    }
}

#[tokio::test]
async fn a_write_behind_a_link_is_seen() {
    let elsewhere = TempDir::new().unwrap();
    let real = elsewhere.path().join("real.toml");
    fs::write(&real, "a = 1").unwrap();
    let mut world = World::start(|dir| symlink(&real, dir.join("switchback.toml")).unwrap());
    fs::write(&real, "a = 2").unwrap();
    world.triggered().await;
}

#[tokio::test]
async fn a_fragment_is_seen_when_it_comes_changes_and_goes() {
    let mut world = World::start(plain);
    let fragment = world.path("conf.d/shop.toml");
    fs::write(&fragment, "a = 1").unwrap();
    world.triggered().await;
    fs::write(&fragment, "a = 2").unwrap();
    world.triggered().await;
    fs::remove_file(&fragment).unwrap();
    world.triggered().await;
}

#[tokio::test]
async fn a_fragment_directory_that_comes_later_is_seen() {
    let mut world = World::start(|dir| fs::write(dir.join("switchback.toml"), "").unwrap());
    fs::create_dir(world.path("conf.d")).unwrap();
    fs::write(world.path("conf.d/shop.toml"), "a = 1").unwrap();
    world.triggered().await;
    fs::write(world.path("conf.d/shop.toml"), "a = 2").unwrap();
    world.triggered().await;
}

#[test]
fn what_changes_no_contents_triggers_nothing() {
    let world = World::start(plain);
    let (files, dirs) = (vec![world.path("switchback.toml")], vec![world.path("conf.d")]);
    let watched = Watched { files, dirs, named: Vec::new() };
    let before = watched.contents();
    fs::write(world.path("switchback.toml"), "a = 1").unwrap();
    fs::write(world.path("conf.d/.#shop.toml"), "lock").unwrap();
    fs::write(world.path("conf.d/shop.toml~"), "backup").unwrap();
    fs::write(world.path("other.toml"), "a = 2").unwrap();
    assert_eq!(watched.contents(), before);
    fs::rename(world.path("conf.d/shop.toml~"), world.path("conf.d/shop.toml")).unwrap();
    assert_ne!(watched.contents(), before);
}

#[tokio::test]
async fn pulls_that_nobody_acted_on_are_one() {
    let World { mut triggers, trigger, watch, dir: _dir } = World::start(plain);
    trigger.pull();
    trigger.pull();
    drop((trigger, watch));
    assert_eq!(triggers.recv().await, Some(()));
    assert_eq!(triggers.recv().await, None, "the watch has ended, and with it its trigger");
}

#[tokio::test]
async fn what_is_named_is_watched_from_then_on_and_no_longer() {
    let mut world = World::start(plain);
    fs::write(world.path("old.pem"), "1").unwrap();
    world.watch.follow(vec![world.path("old.pem"), world.path("missing.pem")]);
    fs::write(world.path("old.pem"), "2").unwrap();
    world.triggered().await;
    fs::write(world.path("missing.pem"), "now it is there").unwrap();
    world.triggered().await;
    // In a directory of its own, which has to be watched first.
    fs::create_dir(world.path("live")).unwrap();
    fs::write(world.path("live/new.pem"), "1").unwrap();
    world.watch.follow(vec![world.path("live/new.pem")]);
    fs::write(world.path("old.pem"), "3").unwrap();
    fs::write(world.path("live/.tmp"), "2").unwrap();
    fs::rename(world.path("live/.tmp"), world.path("live/new.pem")).unwrap();
    world.triggered().await;
}

#[tokio::test]
async fn following_is_no_news() {
    let mut world = World::start(plain);
    fs::write(world.path("a.pem"), "1").unwrap();
    world.watch.follow(vec![world.path("a.pem")]);
    tokio::time::sleep(3 * QUIET).await;
    assert!(world.triggers.try_recv().is_err());
}
