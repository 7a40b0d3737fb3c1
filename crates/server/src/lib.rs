//! The highwater server and its command line: settings, wiring, wire formats, telemetry.
//!
//! How anything is computed lives in the crates below; here bytes become calls and answers become
//! bytes. Reading order: [`cli`] (where a process starts), [`settings`], [`serve`] (bind, open,
//! run, stop), [`app`] (the wiring), [`http`] (one resource per file), [`line_protocol`] (bytes to
//! points), [`queries`] (how many run at once), `memory` (how much of it there is), [`rules`] (the folder of rule files), `fixture` (tests of rules), `text_diff`, [`import`] (files to a server), [`export`] (and back), [`formats`] (rows to text), [`respond`] (errors to
//! statuses), [`telemetry`].

pub mod app;
pub mod cli;
pub mod demo;
pub mod export;
mod fixture;
pub mod formats;
pub mod http;
pub mod import;
pub mod line_protocol;
mod memory;
pub mod queries;
pub mod respond;
pub mod rules;
pub mod serve;
pub mod settings;
pub mod telemetry;
mod text_diff;
pub mod threads;
