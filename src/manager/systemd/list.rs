//! Which instances systemd has.

use std::path::PathBuf;

use futures_util::future::try_join_all;
use zbus::OwnedObjectPath;
use zbus::proxy::CacheProperties;
use zbus_systemd::systemd1::{ServiceProxy, UnitProxy};

use super::state::{ActiveState, LoadState, UnitState};
use super::{Systemd, is_systemd_error};
use crate::control::Manager;
use crate::instance::Name;
use crate::manager::{Error, Managed, State};

impl Systemd {
    /// Every instance that is not simply stopped, by name; of those that serve no more than that.
    pub(super) async fn list_instances(&self) -> Result<Vec<Managed>, Error> {
        let patterns = Name::unit_patterns().map(str::to_owned).to_vec();
        let units = self
            .manager
            .list_units_by_patterns(Vec::new(), patterns)
            .await
            .map_err(|error| self.error("list its units", error))?;
        let (sockets, units): (Vec<_>, Vec<_>) =
            units.into_iter().partition(|unit| Name::from_socket(&unit.0).is_some());
        let units = units.into_iter().filter_map(|unit| Some((Name::from_unit(&unit.0)?, unit)));
        let looked_at = units.map(async |(name, (unit, _, _, active, _, _, path, ..))| {
            if ActiveState::from(active).is_up() {
                return Ok(Some(serving(name, unit)));
            }
            let state = self.state_at(&unit, &path).await?;
            Ok(state.and_then(|state| present(state, name, unit)))
        });
        let mut found: Vec<Managed> = try_join_all(looked_at).await?.into_iter().flatten().collect();
        // One that was given up stays, while another unit of the same instance may have taken its place.
        found.sort_by(|a, b| (&a.name, a.state == State::Failed).cmp(&(&b.name, b.state == State::Failed)));
        found.dedup_by(|later, kept| later.name == kept.name);
        for (socket, _, _, active, ..) in sockets {
            let Some(name) = Name::from_socket(&socket) else { continue };
            let starts = found.iter().any(|managed| managed.name == name);
            if !starts && ActiveState::from(active).is_up() {
                let config = self.config_of(&name).await?;
                found.push(listening(name, config));
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// The instance of this name, the running one of its units first; `None` when neither is more than stopped.
    pub(super) async fn find_instance(&self, name: &Name) -> Result<Option<Managed>, Error> {
        let mut found: Option<Managed> = None;
        for unit in [name.unit(), name.template_unit()] {
            let state = self.state_of(&unit).await?;
            let Some(managed) = state.and_then(|state| present(state, name.clone(), unit)) else { continue };
            let better = found.as_ref().is_none_or(|found| found.state == State::Failed);
            if better {
                found = Some(managed);
            }
        }
        let listens = found.is_none()
            && self.active_state(&name.template_socket()).await?.is_some_and(|state| state.is_up());
        if listens {
            found = Some(listening(name.clone(), self.config_of(name).await?));
        }
        Ok(found)
    }

    /// The state of a unit; `None` when systemd does not have it.
    pub(super) async fn state_of(&self, unit: &str) -> Result<Option<UnitState>, Error> {
        match self.unit_path(unit).await? {
            Some(path) => self.state_at(unit, &path).await,
            None => Ok(None),
        }
    }

    /// Whether a unit of any kind is up; `None` when systemd does not have it.
    pub(super) async fn active_state(&self, unit: &str) -> Result<Option<ActiveState>, Error> {
        let Some(path) = self.unit_path(unit).await? else { return Ok(None) };
        let state = async { self.unit_at(path).await?.active_state().await };
        let state = state.await.map_err(|error| self.error(format!("look up {unit}"), error))?;
        Ok(Some(state.into()))
    }

    /// The object of a unit; `None` when systemd does not have it.
    pub(super) async fn unit_path(&self, unit: &str) -> Result<Option<OwnedObjectPath>, Error> {
        match self.manager.get_unit(unit.to_owned()).await {
            Ok(path) => Ok(Some(path)),
            Err(error) if is_systemd_error(&error, "NoSuchUnit") => Ok(None),
            Err(error) => Err(self.error(format!("look up {unit}"), error)),
        }
    }

    /// What systemd tells of the service at this object.
    pub(super) async fn service_at(&self, path: OwnedObjectPath) -> zbus::Result<ServiceProxy<'static>> {
        let service = ServiceProxy::builder(&self.connection).path(path);
        service.cache_properties(CacheProperties::No).build().await
    }

    /// What systemd tells of the unit of any kind at this object.
    pub(super) async fn unit_at(&self, path: OwnedObjectPath) -> zbus::Result<UnitProxy<'static>> {
        let unit = UnitProxy::builder(&self.connection).path(path);
        unit.cache_properties(CacheProperties::No).build().await
    }

    /// The state of the unit at this object; `None` when it has gone, of which systemd then makes up a blank one.
    async fn state_at(&self, unit: &str, path: &OwnedObjectPath) -> Result<Option<UnitState>, Error> {
        match UnitState::read(&self.connection, path).await {
            Ok(state) => {
                Ok(Some(state).filter(|state| state.load != LoadState::NotFound || !state.active.is_down()))
            }
            Err(error) if has_gone(&error) => Ok(None),
            Err(error) => Err(self.error(format!("read the state of {unit}"), error)),
        }
    }
}

/// Whether an object was asked that systemd has no more: its unit has gone in between.
pub(super) fn has_gone(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::FDO(error) if matches!(**error, zbus::fdo::Error::UnknownObject(_)))
}

/// An instance that serves, by the name of its unit alone.
fn serving(name: Name, unit: String) -> Managed {
    Managed { transient: unit == name.unit(), ..bare(name, unit, State::Running) }
}

/// An instance that its first client starts.
fn listening(name: Name, config: Option<PathBuf>) -> Managed {
    let unit = name.template_socket();
    Managed { config, restarts: Some(0), ..bare(name, unit, State::Listening) }
}

/// An instance of which nothing else is known.
fn bare(name: Name, unit: String, state: State) -> Managed {
    Managed {
        transient: false,
        name,
        manager: Manager::Systemd,
        unit,
        pid: None,
        state,
        since: None,
        config: None,
        argv: Vec::new(),
        restarts: None,
        status_text: None,
        failure: None,
        fragment: None,
        own_unit: None,
    }
}

/// The unit as an instance, unless it is simply stopped.
fn present(state: UnitState, name: Name, unit: String) -> Option<Managed> {
    Some(state.into_managed(name, unit)).filter(|managed| managed.state != State::Stopped)
}
