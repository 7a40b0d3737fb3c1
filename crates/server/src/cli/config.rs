//! `highwater config`: what can be set.

use clap::Subcommand;

use crate::settings::DEFAULT_FILE;

/// What to print.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print a settings file with every key, its default and what it does
    Default,
}

pub(super) fn run(command: &ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Default => super::print(DEFAULT_FILE),
    }
}
