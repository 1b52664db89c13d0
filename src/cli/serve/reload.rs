//! Reads the configuration again while everything goes on.

use anyhow::{Error, Result};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::entrances::Entrances;
use super::files::load_again;
use super::settings::{fixed, memory_limit, settings};
use super::{Process, TRY_AGAIN, actor, addresses, cannot_listen, notify, remote};
use crate::control::Failed;
use crate::control::reload::Trigger;
use crate::proxy::crew;
use crate::proxy::inherited::Inherited;
use crate::proxy::upstream::names;

impl Process {
    /// Reads the file again: all of it takes effect, or nothing.
    pub(super) async fn reload(&mut self, trigger: &Trigger) {
        notify::reloading();
        self.reload_and_tell(trigger).await;
        notify::ready(&self.summary());
    }

    async fn reload_and_tell(&mut self, trigger: &Trigger) {
        match self.try_reload().await {
            Ok(()) => {
                info!(epoch = self.handle.live().epoch().0, file = %self.file.display(), "configuration read");
                self.handle.reloaded();
            }
            Err(error) => {
                let errors = told(&error);
                if matches!(error.downcast_ref(), Some(Failed::Store(_) | Failed::Lent)) {
                    // Not the file's fault, and perhaps kept after all: it is read again until that is settled.
                    error!(
                        "the configuration is not in force yet, the store is not to be had; trying again:\n{errors}"
                    );
                    let trigger = trigger.clone();
                    spawn_local(async move {
                        sleep(TRY_AGAIN).await;
                        trigger.pull();
                    });
                } else {
                    error!("the configuration is not used, everything stays as it was:\n{errors}");
                }
                self.handle.reload_failed(errors);
            }
        }
    }

    async fn try_reload(&mut self) -> Result<()> {
        let mut config = load_again(&self.file, self.watching.as_ref())?;
        config.warnings.iter().for_each(|warning| warn!("{warning}"));
        let entrances = Entrances::of(&config, Some(&self.entrances))?;
        let wanted = addresses(&config);
        let bound = crew::bind(&wanted, &mut Inherited::default(), Some(&self.crew), self.crew.size());
        let bound = bound.map_err(cannot_listen)?;
        let remote =
            remote::prepare(config.admin.remote.as_ref(), self.remote.as_ref(), &mut Inherited::default())?;
        let log = self.log.prepare(&config)?;
        names::ask(&config.proxy.name_servers);
        match self.handle.reload(config.services.clone(), actor(&self.file)).await {
            // Its services are in force here, and kept: so is the rest.
            Err(unfenced @ (Failed::Unfenced | Failed::Overtaken)) => warn!("{unfenced}"),
            reloaded => drop(reloaded?),
        }
        self.log.follow(log);
        let settings = settings(&config, &entrances, &self.log);
        self.crew.follow(&wanted, bound, &settings).await;
        let (remote, ended) = remote::follow(self.remote.take(), remote, &self.app, &self.stop_admin);
        self.remote = remote;
        self.admin.extend(ended);
        if fixed(&config) != fixed(&self.config) {
            warn!(
                "changes of [admin] socket, [metrics], [state] and proxy.cpu_affinity take effect at the next start"
            );
        }
        // Until it ends this process has the store that it has opened.
        config.state = self.config.state.clone();
        self.memory.send_replace(memory_limit(&config));
        self.webhooks.follow(&config.webhooks);
        self.finders.follow(&config.discoveries);
        (self.config, self.entrances) = (config, entrances);
        self.show();
        Ok(())
    }
}

/// What is wrong, and what to do about it.
fn told(error: &Error) -> String {
    match error.downcast_ref() {
        Some(Failed::Refused(why)) => format!("{why}\nhint: {}", why.hint()),
        // The file's own errors have their hints.
        _ => format!("{error:#}"),
    }
}
